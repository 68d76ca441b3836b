"""Plots of the theory experiments; each function returns a Matplotlib figure."""

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from experiments.theory.descent import ACTIVATIONS, TRAINED_PAIRS, Descent

COLORS = {"4.1": "#e08214", "4.3": "#2166ac"}
LABELS = {
    "4.1": "4.1: kernels made orthogonal (squared cosine minimised)",
    "4.3": "4.3: Convolutional Similarity (CS) minimised",
}
TRAINED, UNTRAINED = "#1b7837", "#762a83"
LEAST_LOSS = 1e-8
DPI = 150


def reductions(descents: Mapping[str, Descent]) -> Figure:
    """Histograms over seeds: one panel for each activation, one colour a section."""
    figure = Figure(figsize=(8, 7.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(ACTIVATIONS), sharex=True)
    least = min(
        np.quantile(descent.reductions[name], 0.001)
        for descent in descents.values()
        for name in ACTIVATIONS
    )
    bins = np.linspace(min(0.0, least), 1.0, 81)
    for panel, name in zip(panels, ACTIVATIONS, strict=True):
        for section, descent in descents.items():
            values, color = descent.reductions[name], COLORS[section]
            share = np.full(values.size, 1 / values.size)
            panel.hist(
                values,
                bins,
                weights=share,
                color=color,
                alpha=0.75,
                label=LABELS[section],
            )
            panel.axvline(values.mean(), color=color, linestyle="--")
            panel.annotate(
                f"mean {values.mean():.0%}",
                (values.mean(), 0.88),
                xycoords=panel.get_xaxis_transform(),
                xytext=(4, 0),
                textcoords="offset points",
                color=color,
                weight="bold",
            )
        panel.set_title("no activation" if name == "feature maps" else name)
        panel.set_ylabel("share of seeds")
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _plain(panel)
    panels[-1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[-1].set_xlabel(
        "reduction of the |cosine| of the two feature maps,\n"
        "against random kernels and no activation"
    )
    figure.suptitle("How much less alike do two feature maps become?", weight="bold")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", frameon=False)
    return figure


def curves(descents: Mapping[str, Descent], matrices: np.ndarray) -> Figure:
    """What is minimised, what the feature maps do meanwhile, and four kernels' pairs.

    Args:
        descents: sections 4.1 and 4.3.
        matrices: section 4.4, CS of shape `(seeds, rounds + 1, M, M)`.
    """
    figure = Figure(figsize=(13, 4.6), dpi=DPI, layout="constrained")
    losses, maps, pairs = figure.subplots(1, 3)
    for section, descent in descents.items():
        _band(losses, descent.loss / descent.loss[:, :1], section)
        _band(maps, descent.similarity, section)
    losses.set(
        title="Does the loss fall?",
        xlabel="SGD step",
        ylabel=f"loss relative to step 0 (cut at {LEAST_LOSS:.0e})",
        yscale="log",
    )
    losses.set_ylim(bottom=max(LEAST_LOSS, losses.get_ylim()[0]))
    maps.set(
        title="Do the feature maps become less alike?",
        xlabel="SGD step",
        ylabel="|cosine| between the two feature maps",
        ylim=(0, 1.02),
    )
    _pair_curves(pairs, _mean(matrices))
    handles, labels = losses.get_legend_handles_labels()
    labels = [f"{label}: median, middle 90 % of seeds" for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    for panel in (losses, maps, pairs):
        _plain(panel)
    return figure


def pairs(matrices: np.ndarray) -> Figure:
    """Heat maps of the mean CS of every two kernels, before and after.

    Args:
        matrices: CS of shape `(seeds, rounds + 1, M, M)`.
    """
    ends = _mean(matrices)[[0, -1]]
    kernels = ends.shape[-1]
    names = [f"kernel {i + 1}" for i in range(kernels)]
    itself = np.eye(kernels, dtype=bool)
    between = np.where(itself, np.nan, ends)
    scale = LogNorm(np.nanmin(between), np.nanmax(between))
    figure = Figure(figsize=(9.6, 4.8), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2)
    titles = ("before", f"after {matrices.shape[1] - 1} rounds of SGD")
    for panel, title, values, colored in zip(panels, titles, ends, between, strict=True):
        image = panel.imshow(colored, norm=scale, cmap="Blues")
        panel.set_facecolor("0.92")
        panel.set_title(title)
        panel.set_xticks(range(kernels), names)
        panel.set_yticks(range(kernels), names)
        panel.tick_params(length=0)
        for (i, j), value in np.ndenumerate(values):
            color = "0.55" if itself[i, j] else "white" if scale(value) > 0.6 else "black"
            panel.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)
        for i, j in TRAINED_PAIRS:
            for corner in ((i - 0.46, j - 0.46), (j - 0.46, i - 0.46)):
                frame = Rectangle(corner, 0.92, 0.92, fill=False, ec=TRAINED, lw=2.5)
                panel.add_patch(frame)
    figure.colorbar(image, ax=panels, label="CS, mean over seeds")
    figure.suptitle(
        "4.4: Convolutional Similarity (CS) of every two of four kernels\n"
        "framed: the pairs trained; grey: a kernel with itself"
    )
    return figure


def _pair_curves(panel: Axes, matrices: np.ndarray) -> None:
    """One line a pair of the mean `matrices`, `(rounds + 1, M, M)`, named at its end."""
    every_pair = itertools.combinations(range(matrices.shape[-1]), 2)
    by_end = sorted(every_pair, key=lambda pair: matrices[-1, *pair])
    ends = np.log([matrices[-1, *pair] for pair in by_end])
    gap = 0.05 * np.ptp(np.log([matrices[:, *pair] for pair in by_end]))
    for k in range(1, len(ends)):  # names must not overlap
        ends[k] = max(ends[k], ends[k - 1] + gap)
    for (i, j), height in zip(by_end, np.exp(ends), strict=True):
        color, style = (TRAINED, "-") if (i, j) in TRAINED_PAIRS else (UNTRAINED, "--")
        panel.plot(matrices[:, i, j], color=color, linestyle=style)
        panel.annotate(
            f"({i + 1}, {j + 1})",
            (len(matrices) - 1, height),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=color,
        )
    panel.plot([], [], color=TRAINED, label="trained in turn")
    panel.plot([], [], color=UNTRAINED, linestyle="--", label="never trained")
    panel.legend(frameon=False)
    panel.set(
        title="4.4: do the pairs never trained fall too?",
        xlabel="round (one SGD step on each trained pair)",
        ylabel="CS of a pair, mean over seeds",
        yscale="log",
    )


def _mean(matrices: np.ndarray) -> np.ndarray:
    """Mean over seeds, positive for a logarithmic scale even where it underflows."""
    return np.maximum(matrices.mean(0, dtype=np.float64), np.finfo(np.float32).tiny)


def _band(panel: Axes, values: ArrayLike, section: str) -> None:
    """Median over seeds, and the middle 90 % of them."""
    low, median, high = np.quantile(np.asarray(values), (0.05, 0.5, 0.95), axis=0)
    color = COLORS[section]
    panel.plot(median, color=color, label=LABELS[section])
    panel.fill_between(range(len(median)), low, high, color=color, alpha=0.2, lw=0)


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
