"""The plots of a run: accuracy, similarity per layer, similarity matrices."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import convsim_jax as cs
from experiments.classify.results import Result, RunFolder
from experiments.classify.summary import BASELINE, difference
from experiments.interval import interval
from experiments.methods import METHODS, SCALE_FREE
from experiments.run_folder import replacing

# Colours that the colour-blind can tell apart, by Okabe and Ito, and one by Tol.
COLOURS = dict(
    zip(
        METHODS,
        (
            "#000000",
            "#999999",
            "#0072B2",
            "#56B4E9",
            "#882255",
            "#D55E00",
            "#009E73",
            "#E69F00",
            "#CC79A7",
        ),
        strict=True,
    )
)
# The few whose kernels are shown.
SHOWN = ("none", "paper-init", "scale-free-init", "scale-free-reg")


def draw(folder: RunFolder, results: Mapping[str, Result], title: str) -> None:
    """Writes `accuracy.png`, `layers.png` and `similarity_matrix.png`."""
    plt.switch_backend("agg")
    finished = {name: r for name, r in results.items() if r.finished.any()}
    figures = {"similarity_matrix": similarity_matrices(folder, list(results))}
    if finished:
        figures |= {"accuracy": accuracy(finished), "layers": layers(finished)}
    for name, figure in figures.items():
        figure.supxlabel(title, size=8, color="0.4")
        with replacing(folder.path / f"{name}.png", "wb") as file:
            figure.savefig(file, format="png", dpi=150)
        plt.close(figure)


def accuracy(results: Mapping[str, Result]) -> Figure:
    """Mean accuracy against the epoch; final accuracy less the baseline's, by seed."""
    figure, (curves, finals) = plt.subplots(
        1, 2, figsize=(10, 4.2), layout="constrained", width_ratios=(3, 2)
    )
    shown = []
    for method, result in results.items():
        columns = result.accuracy[result.finished].T
        mean, reach = np.array([interval(column) for column in columns]).T
        epochs = np.arange(1, len(mean) + 1)
        band = {"color": COLOURS[method], "alpha": 0.1, "linewidth": 0}
        curves.fill_between(epochs, mean - reach, mean + reach, **band)
        curves.plot(epochs, mean, color=COLOURS[method], linewidth=1.5)
        shown.append(mean[len(mean) // 6 :])
    # The first epochs, steep and much alike, would flatten what comes later.
    lowest, highest = np.min(shown), np.max(shown)
    margin = 0.2 * (highest - lowest) + 0.1
    curves.set_ylim(lowest - margin / 2, min(highest + margin, 100))
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.set(
        xlabel="epoch", ylabel="test accuracy %", title="Mean of the seeds, 95 % interval"
    )

    baseline = results.get(BASELINE)
    for row, (method, result) in enumerate(results.items()):
        values = result.accuracy[result.finished, -1]
        if baseline is not None:
            values = difference(result, baseline)
        mean, reach = interval(values)
        finals.plot(values, [row] * len(values), "o", color=COLOURS[method], alpha=0.35)
        finals.errorbar(
            mean, row, xerr=reach, color=COLOURS[method], marker="D", capsize=4
        )
    finals.set_yticks(range(len(results)), results)
    for label, method in zip(finals.get_yticklabels(), results, strict=True):
        label.set(color=COLOURS[method], weight="bold")
    finals.invert_yaxis()
    finals.set_title("At the end: seeds, mean, 95 % interval")
    finals.set_xlabel("test accuracy %")
    if baseline is not None:
        finals.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        finals.set_xlabel(f"test accuracy less that of {BASELINE}, % points")
    for axes in (curves, finals):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def layers(results: Mapping[str, Result]) -> Figure:
    """Feature-map similarity of each layer, at the start and the end of training."""
    figure, both = plt.subplots(
        1, 2, figsize=(10, 4.2), layout="constrained", sharey=True
    )
    for axes, side in zip(both, ("before", "after"), strict=True):
        for index, (method, result) in enumerate(results.items()):
            start, end = (
                getattr(measured, side)[result.finished].mean(axis=0)
                for measured in (result.start, result.end)
            )
            colour = COLOURS[method]
            x = np.arange(len(end)) + (index - (len(results) - 1) / 2) * 0.8 / len(
                results
            )
            axes.vlines(x, start, end, color=colour, linewidth=1.5)
            axes.plot(x, start, "o", color=colour, markerfacecolor="white")
            axes.plot(x, end, "o", color=colour, label=method)
        axes.set_xticks(range(len(end)), [f"conv {i + 1}" for i in range(len(end))])
        axes.set_title(f"{side.capitalize()} the activation")
        axes.set_ylim(0, None)
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("mean |cosine| between feature maps")
    both[1].plot(
        [], [], "o", color="0.5", markerfacecolor="white", label="start of training"
    )
    both[1].plot([], [], "o", color="0.5", label="end of training")
    both[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def similarity_matrices(folder: RunFolder, methods: list[str]) -> Figure:
    """The scale-free similarity of all pairs of kernels in the middle conv layer."""
    methods = [name for name in SHOWN if name in methods] or methods[: len(SHOWN)]
    kernels = {method: folder.kernels(method) for method in methods}
    path = [name for name in kernels[methods[0]] if name.startswith("start/")][1]
    path = path.removeprefix("start/")
    figure, grid = plt.subplots(
        2,
        len(methods),
        figsize=(2.4 * len(methods) + 1.4, 5.4),
        layout="constrained",
        squeeze=False,
    )
    for column, method in enumerate(methods):
        for row, when in enumerate(("start", "end")):
            matrix = np.asarray(
                cs.similarity_matrix(
                    kernels[method][f"{when}/{path}"], **SCALE_FREE._asdict()
                )
            )
            axes = grid[row, column]
            image = axes.imshow(matrix, vmin=0, vmax=1, cmap="magma")
            mean = matrix[~np.eye(len(matrix), dtype=bool)].mean()
            axes.set_title(
                f"{method}\nmean {mean:.2f}" if row == 0 else f"mean {mean:.2f}"
            )
            axes.set_xticks([])
            axes.set_yticks([])
        grid[0, 0].set_ylabel("start of training")
        grid[1, 0].set_ylabel("end of training")
    figure.colorbar(image, ax=grid, shrink=0.6, label="similarity of kernels i and j")
    figure.suptitle(
        f"Scale-free cross-channel similarity of the {len(matrix)} kernels of conv 2"
    )
    return figure
