"""The plots of a run, drawn by Matplotlib, coloured by the page that shows them."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

# The page's colours, light and dark, take the place of these.
MUTED, LINE = "#202020", "#303030"
FIRST, SECOND = "#404040", "#505050"
COLOURS = {MUTED: "muted", LINE: "line", FIRST: "first", SECOND: "second"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": MUTED,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
}
# The largest value, in units of the smallest, that a linear axis shows well.
WIDE = 10


class Curve(NamedTuple):
    """A quantity against the epoch.

    Attributes:
        name: what a legend calls it.
        values: `(epochs, seeds)`, NaN where there is none.
    """

    name: str
    values: np.ndarray


def curves(
    epochs: np.ndarray,
    shown: Sequence[Curve],
    finished: np.ndarray,
    *,
    chosen: np.ndarray | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Each seed thin, the mean of those that finished thick.

    Args:
        epochs: `(epochs,)`.
        shown: one curve, or two that have a legend.
        finished: which seeds did not diverge.
        chosen: of each seed, the epoch to mark on the last curve, if any.
        logarithmic: whether the axis is, if the values span more than `WIDE`.
    """
    with _axes() as (figure, axes):
        for curve, colour in zip(shown, (FIRST, SECOND), strict=False):
            several = curve.values.shape[1] > 1
            for values, fine in zip(curve.values.T, finished, strict=True):
                style = {"alpha": 0.35, "linewidth": 0.8} if several else {}
                line = "-" if fine else ":"
                _line(axes, epochs, values, color=colour, linestyle=line, **style)
            if several and finished.any():
                mean = curve.values[:, finished].mean(axis=1)
                _line(axes, epochs, mean, color=colour)
            axes.plot([], [], color=colour, linewidth=1.8, label=curve.name)
        if chosen is not None:
            last, colour = shown[-1].values, (FIRST, SECOND)[len(shown) - 1]
            for seed in np.flatnonzero(finished):
                at = epochs == chosen[seed]
                axes.plot(epochs[at], last[at, seed], "o", color=colour, markersize=4)
        values = np.concatenate([curve.values for curve in shown])
        _limits(axes, values, finished, logarithmic)
        _whole_numbers(axes, epochs)
        axes.set_xlabel("epoch")
        if len(shown) > 1:
            figure.legend(loc="outside upper right", ncols=2)
    return figure


def layers(start: np.ndarray, end: np.ndarray) -> Figure:
    """A similarity of each layer at the start, hollow, and at the end, filled.

    Args:
        start: `(layers,)`, in [0, 1].
        end: likewise.
    """
    number = np.arange(1, len(end) + 1)
    size = float(np.clip(120 / len(end), 2.5, 6))
    with _axes() as (figure, axes):
        axes.vlines(number, start, end, color=FIRST, linewidth=1)
        axes.plot(
            number,
            start,
            "o",
            color=MUTED,
            markersize=size,
            markerfacecolor="none",
            label="before training",
        )
        axes.plot(number, end, "o", color=FIRST, markersize=size, label="after")
        axes.set_ylim(0, 1.03)
        _whole_numbers(axes, number)
        axes.set_xlabel("conv layer, numbered as in the table")
        figure.legend(loc="outside upper right", ncols=2, handletextpad=0)
        axes.grid(axis="x", visible=False)
    return figure


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element, in the colours and the font of the page around it.

    Args:
        figure: drawn with the colours above.
        name: unique in the page, as the ids inside of the element have to be.
    """
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = element.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, name in COLOURS.items():
        element = element.replace(colour, f"var(--{name})")
    return element


@contextmanager
def _axes() -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.2), layout="constrained")
        yield figure, figure.subplots()


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    style = {"linewidth": 1.8, **style}
    if np.isfinite(y).sum() == 1:  # a line of one point is not seen
        style = {"marker": "o", "markersize": 3, **style}
    axes.plot(x, y, **style)


def _whole_numbers(axes: Axes, values: np.ndarray) -> None:
    margin = 0.03 * (values[-1] - values[0]) + 0.25
    axes.set_xlim(values[0] - margin, values[-1] + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _limits(
    axes: Axes, values: np.ndarray, finished: np.ndarray, logarithmic: bool
) -> None:
    """Fits the axis to the seeds that finished, if any: others may have left for afar."""
    values = values[:, finished] if finished.any() else values
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = values.min(), values.max()
    if logarithmic and 0 < WIDE * low < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1
        axes.set_ylim(low - margin, high + margin)
