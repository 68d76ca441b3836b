"""The plots of the study; each function returns a Matplotlib figure."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.interval import interval
from experiments.study.findings import Finding, curves, mean_of_known, paired
from experiments.study.plan import BASELINE
from experiments.study.results import Outcome
from experiments.study.treatments import TREATMENTS, Kind

# Colours that the colour-blind can tell apart, by Okabe and Ito.
COLOURS = {
    Kind.BASELINE: "#000000",
    Kind.SIMILARITY: "#D55E00",
    Kind.ORTHOGONALITY: "#0072B2",
    Kind.CONTROL: "#777777",
}
# Of all treatments, those that are followed epoch by epoch and layer by layer.
SHOWN = (
    "none",
    "shrunk",
    "paper-init",
    "scale-free-init",
    "scale-free-shrunk",
    "paper-reg",
    "decay",
    "decay+scale-free-shrunk",
)
DPI = 120


def colour_of(name: str) -> str:
    """The same of a treatment in every plot."""
    return f"C{SHOWN.index(name)}"


def gains(found: Mapping[str, Finding], title: str) -> Figure:
    """Difference to the baseline of each treatment, the best first, with its interval."""
    rows = sorted(
        (name for name in found if name != BASELINE),
        key=lambda name: -np.nan_to_num(found[name].gain.mean, nan=-np.inf),
    )
    figure = Figure(figsize=(7.5, 1.2 + 0.27 * len(rows)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(rows):
        finding, colour = found[name], COLOURS[TREATMENTS[name].kind]
        axes.errorbar(
            finding.gain.mean,
            place,
            xerr=finding.gain.reach,
            color=colour,
            marker="D" if finding.clear else "o",
            markerfacecolor=colour if finding.clear else "white",
            capsize=3,
        )
    axes.axvline(0, color="0.7", linewidth=1, zorder=0)
    for kind in dict.fromkeys(TREATMENTS[name].kind for name in rows):
        axes.plot([], [], "o", color=COLOURS[kind], label=kind.value)
    axes.plot([], [], "D", color="0.4", label="filled: clear")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    axes.set_yticks(range(len(rows)), rows)
    for label, name in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(COLOURS[TREATMENTS[name].kind])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy less the baseline's, percentage points")
    axes.set_title(title, size=9)
    return figure


def convergence(
    outcomes: Mapping[str, Outcome], shown: tuple[str, ...], title: str
) -> Figure:
    """Validation accuracy less the baseline's, epoch by epoch, the mean and interval."""
    figure = Figure(figsize=(7.5, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    theirs = curves(outcomes[BASELINE])
    for name in shown:
        columns = [
            interval(paired(a, b))
            for a, b in zip(curves(outcomes[name]).T, theirs.T, strict=True)
        ]
        mean, reach = np.array(columns).T
        epochs = np.arange(1, len(mean) + 1)
        colour = colour_of(name)
        axes.plot(epochs, mean, marker="o", markersize=3, label=name, color=colour)
        axes.fill_between(epochs, mean - reach, mean + reach, color=colour, alpha=0.12)
    axes.axhline(0, color="0.5", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="validation accuracy less\nthe baseline's, points")
    axes.set_title(title, size=9)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def similarity(
    outcomes: Mapping[str, Outcome], shown: tuple[str, ...], title: str
) -> Figure:
    """Feature-map similarity of each layer: at the start, in the middle, at the end."""
    figure = Figure(figsize=(7.5, 3.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, heading in zip(
        panels,
        ("before", "after"),
        ("before the activation", "after the activation"),
        strict=True,
    ):
        for name in shown:
            rows = outcomes[name].layers
            epochs = sorted({row.epoch for row in rows})
            layers = list(dict.fromkeys(row.layer for row in rows))
            colour = colour_of(name)
            for place, layer in enumerate(layers):
                means = [
                    mean_of_known(
                        np.array(
                            [
                                getattr(row, kind)
                                for row in rows
                                if row.layer == layer and row.epoch == epoch
                            ]
                        )
                    )
                    for epoch in epochs
                ]
                xs = place + np.linspace(-0.3, 0.3, len(epochs))
                label = name if place == 0 else None
                axes.plot(xs, means, marker="o", markersize=3, color=colour, label=label)
        axes.set_xticks(range(len(layers)), [f"conv {i + 1}" for i in range(len(layers))])
        axes.set_title(heading, size=9)
    panels[0].set_ylabel("feature-map similarity")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=7,
    )
    figure.suptitle(
        f"{title}: each layer before training, half way and at the end", size=9
    )
    return figure
