"""Aligned tables of text, as all experiments print and keep them."""

import io
from collections.abc import Iterable, Mapping, Sequence

import rich.box
from rich.console import Console
from rich.table import Table

WIDEST = 100  # of tables that are written to files
# Takes the place of the blanks that a cell ends with, which Rich would strip.
BLANK = "\ue000"


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its first column to the left, the others to the right.

    >>> print(aligned(["method", "time"], [["none", "5.0"], ["control", "12.5"]]))
    method   time
    ─────────────
    none      5.0
    control  12.5

    Cells keep the blanks that they end with:

    >>> print(aligned(["method", "gain"], [["none", "0.5  "], ["control", "1.5 *"]]))
    method    gain
    ──────────────
    none     0.5
    control  1.5 *
    """
    table = Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    first, *others = header
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(with_blanks(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None).print(table)
    lines = text.getvalue().replace(BLANK, " ").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def stacked(columns: Mapping[str, Sequence[str]], width: int = WIDEST) -> str:
    """A table of columns by their headings, or several that are no wider, if they can be.

    Each begins with the first column, and leaves out rows that are empty but for it.

    >>> columns = {"": ["none", "decay"], "gain": ["", "2.5"], "time": ["5", "60"]}
    >>> print(stacked(columns, 13))
           gain
    ───────────
    decay   2.5
    <BLANKLINE>
           time
    ───────────
    none      5
    decay    60
    """
    first, *others = columns

    def joined(headings: Sequence[str]) -> str:
        chosen = [first, *headings]
        rows = zip(*(columns[x] for x in chosen), strict=True)
        return aligned(chosen, (row for row in rows if any(row[1:])))

    tables: list[list[str]] = [[]]
    for heading in others:
        wider = [*tables[-1], heading]
        fits = max(map(len, joined(wider).splitlines())) <= width
        if fits or not tables[-1]:
            tables[-1] = wider
        else:
            tables.append([heading])
    return "\n\n".join(map(joined, tables))


def with_blanks(cell: str) -> str:
    """The cell, its last blanks replaced."""
    rest = cell.rstrip(" ")
    return rest + BLANK * (len(cell) - len(rest))
