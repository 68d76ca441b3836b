"""The plots of a comparison; each function returns a Matplotlib figure."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

import convsim_jax as cs
from experiments.compare.settings import BASELINE, RECOMMENDED, Setting
from experiments.compare.statistics import Finding, Findings, mean_of_known, paired
from experiments.compare.table import ENOUGH, by_gain
from experiments.interval import interval
from experiments.interventions import INTERVENTIONS
from experiments.losses import SCALE_FREE
from experiments.run_folder import replacing

DPI = 120
# Colours that the colour-blind can tell apart, by Okabe and Ito, and some by Tol. With
# tuned strengths these interventions are followed epoch by epoch and layer by layer.
FOLLOWED = {
    "none": "#000000",
    "shrunk": "#999999",
    "decay": "#0072B2",
    "paper-init": "#56B4E9",
    "paper-reg": "#882255",
    "scale-free-init": "#E69F00",
    "scale-free-reg": "#CC79A7",
    "scale-free-scaled": "#44AA99",
    "scale-free-shrunk": "#999933",
    "decay+scale-free-shrunk": "#D55E00",
    RECOMMENDED: "#009E73",
}
ROLES = {
    "baseline": "#000000",
    "similarity": "#D55E00",
    "orthogonality": "#0072B2",
    "control": "#777777",
}
# The few whose kernels are shown.
SHOWN = ("none", "paper-init", "scale-free-init", RECOMMENDED)


def figures(found: Findings, setting: Setting) -> dict[str, Figure]:
    """The plots of a setting, by their names."""
    names = list(found) if setting.fixed else [x for x in FOLLOWED if x in found]
    followed = {name: found[name] for name in names}
    split = "validation" if setting.config.validation else "test"
    return {
        "accuracy": accuracy(followed, split),
        "gains": gains(found),
        "layers": layers(followed),
    }


def save(drawn: Mapping[str, Figure], folder: Path, title: str) -> None:
    """Writes figures, each with what it is of above it."""
    for name, figure in drawn.items():
        wide = textwrap.fill(title, int(figure.get_figwidth() * 14))
        figure.suptitle(wide, size=8, color="0.4")
        with replacing(folder / f"{name}.png", "wb") as file:
            figure.savefig(file, format="png", dpi=DPI)


def accuracy(found: Findings, split: str) -> Figure:
    """Accuracy against the epoch, and less the baseline's of the same seed."""
    figure, panels = blank(2, (11, 4.2))
    baseline = found.get(BASELINE)
    shown = [np.empty(0)]
    for name, one in found.items():
        epochs = np.arange(1, one.curve.shape[1] + 1)
        curve(panels[0], name, epochs, list(one.curve[one.finished].T))
        shown += [one.curve[one.finished][:, len(epochs) // 6 :].mean(0)]
        if baseline is not None and name != BASELINE:
            columns = zip(one.curve.T, baseline.curve.T, strict=True)
            curve(panels[1], name, epochs, [paired(a, b) for a, b in columns])
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if len(values):  # the first epochs, steep and much alike, would flatten the others
        low, high = values.min(), values.max()
        margin = 0.2 * (high - low) + 0.1
        panels[0].set_ylim(low - margin, min(high + margin, 100 + margin / 4))
    panels[0].set(xlabel="epoch", ylabel=f"{split} accuracy %")
    panels[0].set_title(described(found, "mean of the seeds", ", 95 % interval"), size=9)
    panels[1].axhline(0, color="0.6", linewidth=1)
    panels[1].set(xlabel="epoch", ylabel="points")
    panels[1].set_title(f"less {BASELINE}'s, of equal seeds", size=9)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, panels[0])
    return figure


def gains(found: Findings) -> Figure:
    """Accuracy less the baseline's, the largest first: seeds, mean and interval."""
    names = by_gain(found)
    compared = BASELINE in found and found[BASELINE].finished.any()
    if compared:
        names.remove(BASELINE)
    figure, (axes,) = blank(1, (7.5, 1.6 + 0.27 * len(names)))
    for place, name in enumerate(names):
        one, colour = found[name], ROLES[INTERVENTIONS[name].role]
        values = one.gain if compared else one.accuracy[one.finished]
        axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.3)
        if not len(values):
            axes.annotate(" diverged", (0, place), va="center", size=7, color=colour)
        if len(values) >= ENOUGH:
            mean, reach = interval(values)
            axes.errorbar(
                mean,
                place,
                xerr=reach,
                color=colour,
                marker="D" if one.clear else "o",
                markersize=5,
                markerfacecolor=colour if one.clear else "white",
                capsize=3,
            )
    for role in dict.fromkeys(INTERVENTIONS[name].role for name in names):
        axes.plot([], [], "o", color=ROLES[role], label=role)
    axes.plot([], [], "D", color="0.4", label="filled: clear")
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(ROLES[INTERVENTIONS[name].role])
    axes.invert_yaxis()
    if compared:
        axes.axvline(0, color="0.7", linewidth=1, zorder=0)
        axes.set_xlabel(f"accuracy less {BASELINE}'s of the same seed, points")
    else:
        axes.set_xlabel("accuracy %")
    axes.set_title(described(found, "seeds, mean", ", 95 % interval"), size=9)
    legend(figure, axes)
    return figure


def layers(found: Findings) -> Figure:
    """Similarity and effective number of the maps, at the start and at the end."""
    columns = {
        "before": "feature-map similarity\nbefore the activation",
        "after": "feature-map similarity\nafter the activation",
        "effective_before": "effective maps before the\nactivation, of all channels",
        "scale_free_loss": "kernel similarity",
    }
    moments = {
        column: {name: by_layer(one, column) for name, one in found.items()}
        for column in columns
    }
    columns = {
        column: title
        for column, title in columns.items()
        if any(np.isfinite(each).any() for each in moments[column].values())
    }
    figure, panels = blank(len(columns), (3.4 * max(len(columns), 2), 4.2))
    for axes, (column, title) in zip(panels, columns.items(), strict=False):
        for place, (name, each) in enumerate(moments[column].items()):
            apart = (place - (len(found) - 1) / 2) * 0.8 / len(found)
            x = np.arange(each.shape[1]) + apart
            axes.vlines(x, *each, color=colour_of(name), linewidth=1)
            style = {"color": colour_of(name), "markersize": 4}
            axes.plot(x, each[0], "o", markerfacecolor="white", **style)
            axes.plot(x, each[1], "o", label=name, **style)
            axes.set_xticks(range(len(x)), [f"conv {i + 1}" for i in range(len(x))])
        axes.set_title(title, size=9)
        axes.set_ylim(0, None)
        axes.grid(axis="y", color="0.92")
    caption = described(found, "hollow: before training, filled: after")
    figure.supxlabel(caption, size=8)
    legend(figure, panels[0])
    return figure


def similarity_matrices(
    found: Findings, kernels: Callable[[str], Mapping[str, np.ndarray]]
) -> Figure:
    """The kernel similarity of all pairs of kernels in the middle conv layer.

    Args:
        found: of the demo.
        kernels: of an intervention, as `Results.kernels`.
    """
    names = [name for name in SHOWN if name in found] or list(found)[: len(SHOWN)]
    figure, grid = blank((2, len(names)), (2.3 * len(names) + 1.4, 5.4))
    for column, name in enumerate(names):
        arrays = kernels(name)
        paths = [x.removeprefix("start/") for x in arrays if x.startswith("start/")]
        path = paths[len(paths) // 2]
        for row, when in enumerate(("start", "end")):
            matrix = np.asarray(
                cs.similarity_matrix(arrays[f"{when}/{path}"], **SCALE_FREE._asdict())
            )
            axes = grid[row * len(names) + column]
            image = axes.imshow(matrix, vmin=0, vmax=1, cmap="magma")
            mean = matrix[~np.eye(len(matrix), dtype=bool)].mean()
            gone = int(found[name].diverged_at[0])
            heading = f"mean {mean:.2f}"
            if when == "end" and gone:
                heading += f"\nbefore it diverged, epoch {gone}"
            axes.set_title(f"{name}\n{heading}" if row == 0 else heading, size=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel("before training" if row == 0 else "after training")
    figure.colorbar(image, ax=list(grid), shrink=0.6, label="similarity of kernels i, j")
    figure.supxlabel(
        f"Kernel similarity (scale-free, cross-channel) of the {len(matrix)} kernels of "
        f"{path.removesuffix('/kernel')}, seed {found[names[0]].seeds[0]}",
        size=9,
    )
    return figure


def sizes(found: Mapping[str, Findings], parameters: Mapping[str, int]) -> Figure:
    """Test accuracy of networks of several widths against their numbers of parameters."""
    figure, (axes,) = blank(1, (7, 4.2))
    names = [name for name in FOLLOWED if sum(name in found[x] for x in parameters) > 1]
    for place, name in enumerate(names):
        known = [x for x in parameters if name in found[x]]
        spreads = [
            interval(found[x][name].accuracy[found[x][name].finished]) for x in known
        ]
        apart = 1 + 0.03 * (place - len(names) / 2)  # so that intervals can be told apart
        axes.errorbar(
            [apart * parameters[x] for x in known],
            [one.mean for one in spreads],
            yerr=[one.reach for one in spreads],
            color=colour_of(name),
            marker="o",
            markersize=4,
            capsize=3,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_xticks(
        list(parameters.values()), [f"{x:,}\n{n}" for n, x in parameters.items()]
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="parameters, on a log axis", ylabel="test accuracy %")
    axes.set_title(
        "Networks of three widths: mean and 95 % interval of the seeds", size=9
    )
    legend(figure, axes)
    return figure


def blank(panels: int | tuple[int, int], size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure, and its panels in one row or in several."""
    rows, columns = (1, panels) if isinstance(panels, int) else panels
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, max(columns, 1), squeeze=False).ravel()
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def curve(axes: Axes, name: str, epochs: np.ndarray, columns: list[np.ndarray]) -> None:
    """The mean of each column of seeds, and its interval where they are enough."""
    spreads = [interval(column) for column in columns]
    mean, reach = np.array(spreads).reshape(-1, 2).T
    axes.plot(epochs, mean, color=colour_of(name), linewidth=1.5, label=name)
    if min(map(len, columns), default=0) >= ENOUGH:
        low, high = mean - reach, mean + reach
        axes.fill_between(epochs, low, high, color=colour_of(name), alpha=0.1, lw=0)


def colour_of(name: str) -> str:
    """The same of an intervention in every plot."""
    others = list(FOLLOWED.values())
    return FOLLOWED.get(name, others[list(INTERVENTIONS).index(name) % len(others)])


def by_layer(one: Finding, column: str) -> np.ndarray:
    """A column of `layers.csv` before training and after, the mean over finished seeds.

    Returns:
        `(2, layers)`; NaN where it is not known.
    """
    rows = one.outcome.layers
    finished = {s.seed for s in one.outcome.scores if np.isfinite(s.accuracy)}
    names = list(dict.fromkeys(row.layer for row in rows))
    ends = [pick((row.epoch for row in rows), default=0) for pick in (min, max)]
    return np.array(
        [
            [
                mean_of_known(
                    np.array(
                        [
                            getattr(row, column)
                            for row in rows
                            if (row.layer, row.epoch) == (name, epoch)
                            and row.seed in finished
                        ]
                    )
                )
                for name in names
            ]
            for epoch in ends
        ]
    )


def described(found: Findings, what: str, of_many: str = "") -> str:
    """A title that says what is shown, and what is not there."""
    few = max((one.finished.sum() for one in found.values()), default=0) < ENOUGH
    gone = [name for name, one in found.items() if not one.finished.any()]
    lines = [what + ("" if few else of_many)]
    return "\n".join([*lines, *([f"all seeds diverged: {', '.join(gone)}"] * bool(gone))])


def legend(figure: Figure, axes: Axes) -> None:
    """The names of the lines of one panel, below all."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        options = {"ncols": 4, "frameon": False, "fontsize": 7}
        figure.legend(handles, labels, loc="outside lower center", **options)
