"""Charts: curves over epochs, a bar a layer; by Matplotlib, in the page's colour."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.interval import mean
from experiments.report.wording import number

INK = "#123456"  # the page's colour takes its place
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.alpha": 0.2,
    "grid.linewidth": 0.5,
}
BEFORE = "before training"  # its bars are hollow
LOGARITHMIC = ("The paper's loss",)  # where the largest is 10 times the smallest


class Chart(NamedTuple):
    """A plot, and what it says to those who do not see it."""

    title: str
    image: Markup
    description: str


class Line(NamedTuple):
    """A quantity against the epoch."""

    name: str  # what a legend calls it
    epochs: np.ndarray  # `(epochs,)`
    values: np.ndarray  # `(epochs, seeds)`, NaN where there is none
    finished: np.ndarray  # which seeds did not diverge; those that did are dotted
    chosen: np.ndarray | None = None  # of each seed, the epoch to mark, if any

    def __bool__(self) -> bool:
        """Whether there is a number in it."""
        return bool(np.isfinite(self.values).any())

    @property
    def seen(self) -> np.ndarray:
        """The values of the seeds that finished, if any."""
        return self.values[:, self.finished] if self.finished.any() else self.values

    def in_words(self) -> str:
        """Its first and its last mean."""
        known = np.flatnonzero(np.isfinite(self.seen).all(axis=1))
        means = (
            f"{number(self.seen[i].mean())} in epoch {self.epochs[i]}"
            for i in sorted({*known[:1], *known[-1:]})
        )
        return f"{self.name} {' and '.join(means) or 'known of no epoch'}"


def curves(title: str, lines: Sequence[Line]) -> Chart:
    """Each seed thin, the mean of those that finished thick; the axis fits these."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("epoch")
        for colour, line in enumerate(lines):
            style: dict[str, Any] = {"color": f"C{colour}"}
            if np.isfinite(line.values).any(1).sum() == 1:  # a point is no line
                style |= {"marker": "o", "markersize": 3}
            several = line.values.shape[1] > 1
            thin: dict[str, Any] = {"alpha": 0.35, "linewidth": 0.8} if several else {}
            for values, fine in zip(line.values.T, line.finished, strict=True):
                axes.plot(line.epochs, values, "-" if fine else ":", **style, **thin)
            if several and line.finished.any():
                axes.plot(line.epochs, line.seen.mean(axis=1), **style)
            if line.chosen is not None:
                at = (line.epochs[:, None] == line.chosen) & line.finished
                epochs = line.epochs[at.nonzero()[0]]
                axes.plot(epochs, line.values[at], f"C{colour}o", markersize=4)
            axes.plot([], [], color=f"C{colour}", label=line.name if line else None)
        fitted = [line for line in lines if line.finished.any()] or lines
        seen = np.concatenate([line.seen[np.isfinite(line.seen)] for line in fitted])
        low, high = (seen.min(), seen.max()) if len(seen) else (0, 1)
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1
        axes.set_ylim(low - margin, high + margin)
        if title in LOGARITHMIC and 0 < 10 * low < high:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.3, high * 1.3)
            title += " (logarithmic axis)"
        words = "; ".join(line.in_words() for line in lines if line)
        return Chart(title, svg(figure, title), f"{title}: {words}.")


def bars(title: str, groups: Mapping[str, np.ndarray], top: float = 1.0) -> Chart:
    """A bar a layer, from 0 to `top` at most; those of several groups side by side."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("conv layer, in the order of use")
        width = 0.8 / len(groups)
        for i, (name, values) in enumerate(groups.items()):
            hollow = {"fill": False, "edgecolor": INK, "linewidth": 0.5}
            style = hollow if name == BEFORE else {"color": f"C{i - (BEFORE in groups)}"}
            at = np.arange(1, len(values) + 1) + (i - (len(groups) - 1) / 2) * width
            axes.bar(at, values, width, label=name, **style)
        axes.set_ylim(0, top)
        axes.grid(axis="x", visible=False)
        means = (f"{name} {number(mean(values))}" for name, values in groups.items())
        words = f"mean of {len(values)} conv layers: {'; '.join(means)}"
        return Chart(title, svg(figure, title), f"{title}, {words}.")


def svg(figure: Figure, name: str) -> Markup:
    """A figure as an SVG element, in the colour and the font of the page around it.

    The `name` is unique in the page, as the ids inside of the element have to be.
    """
    if len(figure.axes[0].get_legend_handles_labels()[1]) > 1:
        figure.legend(loc="outside upper left", ncols=2)
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    element = text.getvalue()
    element = re.sub(r'<g id="[^"]*"', "<g", element[element.index("<svg") :])
    element = element.replace("'DejaVu Sans'", "system-ui, sans-serif")
    return Markup(element.replace(INK, "currentColor"))


def _axes(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.6, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes
