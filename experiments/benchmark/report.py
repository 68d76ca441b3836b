"""Tables and the plot of a benchmark."""

import io
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import rich.box
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments.benchmark.programs import SGD
from experiments.benchmark.timing import Program, Timing


class Row(NamedTuple):
    """One program on one network.

    Attributes:
        times_sgd: time a weight, in units of that of the SGD update.
        gb_per_s: bytes that it would take to read the weights and write as many.
    """

    network: str
    program: str
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    calls: int
    weights: int
    times_sgd: float
    ns_per_weight: float
    gb_per_s: float
    compile_s: float
    extra_memory: float


def rows_of(
    network: str, programs: Mapping[str, Program], timings: Mapping[str, Timing]
) -> list[Row]:
    """The figures of one network."""
    sgd = timings[SGD].median / programs[SGD].weights
    rows = []
    for name, program in programs.items():
        median, (lower, upper), calls = timings[name]
        per_weight = median / program.weights
        rows.append(
            Row(
                network,
                name,
                1e3 * median,
                1e3 * lower,
                1e3 * upper,
                calls,
                program.weights,
                per_weight / sgd,
                1e9 * per_weight,
                8e-9 / per_weight,
                program.compile_seconds,
                program.extra_memory,
            )
        )
    return rows


def network_table(rows: Sequence[Row]) -> str:
    """The programs of one network, one below the other."""
    weights = max(row.weights for row in rows)
    header = (
        f"{rows[0].network}, {weights / 1e6:.1f} M weights",
        "median\nms",
        "quartiles\nms",
        "times\nSGD",
        "ns a\nweight",
        "read and\nwritten GB/s",
        "compiled\nin s",
        "extra memory,\ntimes weights",
    )

    def name(row: Row) -> str:
        some = "" if row.weights == weights else f" ({row.weights / 1e6:.1f} M weights)"
        return row.program + some

    return aligned(
        header,
        [
            (
                name(row),
                short(row.median_ms),
                f"{short(row.lower_quartile_ms)} - {short(row.upper_quartile_ms)}",
                short(row.times_sgd),
                short(row.ns_per_weight),
                short(row.gb_per_s),
                short(row.compile_s),
                short(row.extra_memory),
            )
            for row in rows
        ],
    )


def growth_table(relative: Mapping[tuple[str, int], float]) -> str:
    """Time a weight as one axis grows, relative to its first size."""
    return aligned(
        ("all pairs, 3x3, 256 channels", "size", "time a weight"),
        [(axis, str(size), short(value)) for (axis, size), value in relative.items()],
    )


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text."""
    table = Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column, heading in enumerate(header):
        justify = "right" if column else "left"
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def short(value: float) -> str:
    """Two or three digits.

    >>> [short(value) for value in (0.0123, 0.5, 1.234, 56.78, 1234.5, float("nan"))]
    ['0.012', '0.50', '1.2', '57', '1234', '']
    """
    if math.isnan(value):
        return ""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def machine() -> str:
    """The device, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if "model name" in line]
        name = names[0] if names else name
    return f"{os.cpu_count()} cores of {name}"


def cost_figure(per_weight: Mapping[str, Mapping[int, float]], device: str) -> Figure:
    """Nanoseconds a weight against the width of a 3x3 conv."""
    figure = Figure(figsize=(8.5, 5), dpi=150, layout="constrained")
    panel = figure.subplots()
    for number, (name, line) in enumerate(per_weight.items()):
        yardstick = name == SGD
        (drawn,) = panel.plot(
            list(line),
            list(line.values()),
            marker="" if yardstick else "osD^vP*X"[number % 8],
            markersize=4,
            linewidth=3 if yardstick else 1.4,
            color="black" if yardstick else f"C{number % 10}",
            linestyle="-" if number < 10 else "--",
        )
        panel.annotate(
            name,
            (list(line)[-1], list(line.values())[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=7,
            color=drawn.get_color(),
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    widths = sorted({width for line in per_weight.values() for width in line})
    panel.set_xticks(widths, [str(width) for width in widths])
    panel.set_xlim(widths[0] * 0.9, widths[-1] * 3)
    panel.set_xlabel("input and output channels of a 3x3 conv")
    panel.set_ylabel("value and gradient, ns a weight")
    panel.grid(alpha=0.3, which="both")
    panel.set_title(f"Cost against width, on {device}", size=10)
    return figure
