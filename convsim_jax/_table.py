"""Plain aligned tables for the reports."""

from collections.abc import Sequence


def aligned_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns: the first aligned to the left, the others to the right.

    >>> print(aligned_table(["layer", "norm"], [["conv", "1.25"], ["head", "10.5"]]))
    layer  norm
    conv   1.25
    head   10.5
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [
                cell.rjust(width)
                for cell, width in zip(line[1:], widths[1:], strict=True)
            ]
        ).rstrip()
        for line in (header, *rows)
    )
