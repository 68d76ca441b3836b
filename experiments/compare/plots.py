"""The plots of a comparison; each function returns a Matplotlib figure."""

import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

import convsim_jax as cs
from experiments.compare.settings import RECIPE, Setting
from experiments.compare.statistics import Finding, Findings, correlations
from experiments.compare.table import by_gain, told
from experiments.interval import ENOUGH, interval, mean
from experiments.interventions import INTERVENTIONS
from experiments.losses import SCALE_FREE
from experiments.run_folder import replacing

DPI = 120
# Colours that the colour-blind can tell apart, by Okabe and Ito, and some by Tol. With
# tuned strengths these methods are followed epoch by epoch and layer by layer.
FOLLOWED = {
    "none": "#000000",
    "shrunk": "#999999",
    "decay": "#0072B2",
    "paper-init": "#56B4E9",
    "paper-reg": "#882255",
    "scale-free-init": "#E69F00",
    "scale-free-norm-init": "#DDCC77",
    "scale-free-reg": "#CC79A7",
    "scale-free-scaled": "#44AA99",
    "scale-free-shrunk": "#999933",
    "decay+scale-free-shrunk": "#D55E00",
    RECIPE: "#009E73",
    "decorrelate": "#AA4499",
    "muon": "#332288",
}
# Of a method, the arrays that were kept of its first seed.
Arrays = Callable[[str], Mapping[str, np.ndarray]]
ROLES = {
    "baseline": "#000000",
    "similarity": "#D55E00",
    "orthogonality": "#0072B2",
    "control": "#777777",
}
# The few whose kernels and maps are shown.
SHOWN = ("none", "paper-init", "scale-free-init", "decorrelate")
OF_LAYERS = {
    "before": "feature-map similarity\nbefore the activation",
    "after": "feature-map similarity\nafter the activation",
    "effective_before": "effective maps before the\nactivation, of all channels",
    "scale_free_loss": "kernel similarity",
}


def figures(found: Findings, setting: Setting) -> dict[str, Figure]:
    """The plots of a setting, by their names."""
    names = list(found) if setting.fixed else [name for name in FOLLOWED if name in found]
    followed = {name: found[name] for name in names}
    drawn = {
        "accuracy": accuracy(followed, "validation" if setting.followed else "test"),
        "gains": gains(found),
        "layers": layers(followed),
    }
    known = {x: one for x, one in found.items() if np.isfinite(effective(one)).any()}
    return drawn | ({"effective": against_effective(known)} if len(known) > 2 else {})


def save(drawn: Mapping[str, Figure], folder: Path, title: str) -> None:
    """Writes figures, each with what it is of above it."""
    for name, figure in drawn.items():
        wide = textwrap.fill(title, int(figure.get_figwidth() * 14))
        lines = [wide, *filter(None, [figure.get_suptitle()])]
        figure.suptitle("\n".join(lines), size=8, color="0.4")
        with replacing(folder / f"{name}.png", "wb") as file:
            figure.savefig(file, format="png", dpi=DPI)


def accuracy(found: Findings, split: str) -> Figure:
    """Accuracy against the epoch, and less the baseline's of the same seed."""
    figure, (left, right) = blank((1, 2), (11, 4.2))
    baseline = found.get(next(iter(found.values())).baseline)
    for name, one in found.items():
        curve(left, name, one.curve[one.finished])
        if baseline is not None and one is not baseline:
            theirs = dict(zip(baseline.seeds, baseline.curve, strict=True))
            pairs = zip(one.seeds, one.curve, strict=True)
            curve(right, name, [ours - theirs[x] for x, ours in pairs if x in theirs])
    done = [one.curve[one.finished] for one in found.values()]
    late = np.concatenate([curves[:, curves.shape[1] // 6 :] for curves in done])
    if np.isfinite(late).any():
        # The first epochs, steep and much alike, would flatten what comes later.
        low, high = np.nanquantile(late, [0.02, 1])
        left.set_ylim(low - 0.5, min(high + 0.5, 100.2))
    left.set(xlabel="epoch", ylabel=f"{split} accuracy %")
    left.set_title(described(found, "mean of the seeds", ", 95 % interval"), size=9)
    right.axhline(0, color="0.6", linewidth=1)
    right.set(xlabel="epoch", ylabel="points")
    right.set_title(f"less {baseline.name}'s, of equal seeds" if baseline else "", size=9)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, left)
    return figure


def gains(found: Findings) -> Figure:
    """Accuracy less the baseline's, the largest first: seeds, mean and interval."""
    baseline = found.get(next(iter(found.values())).baseline)
    compared = baseline is not None and baseline.finished.any()
    names = [x for x in by_gain(found) if not compared or found[x] is not baseline]
    figure, (axes,) = blank((1, 1), (7.5, 1.8 + 0.25 * len(names)))
    for place, name in enumerate(names):
        one, colour = found[name], ROLES[INTERVENTIONS[name].role]
        values = one.gain.values if compared else one.accuracy[one.finished]
        axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.3)
        if not len(values):
            axes.annotate("  diverged", (0, place), va="center", size=8, color=colour)
        if len(values) >= ENOUGH:
            middle, reach = interval(values)
            fill = {"marker": "o", "markerfacecolor": "white", "markersize": 5}
            if one.gain.clear:
                fill |= {"marker": "D", "markerfacecolor": colour}
            axes.errorbar(middle, place, xerr=reach, color=colour, capsize=3, **fill)
    for role in dict.fromkeys(INTERVENTIONS[name].role for name in names):
        axes.plot([], [], "o", color=ROLES[role], label=role)
    axes.plot([], [], "D", color="0.4", label="filled: clear")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.5, len(names) - 0.5)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(ROLES[INTERVENTIONS[name].role])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy %")
    if compared and baseline:
        axes.axvline(0, color="0.7", linewidth=1, zorder=0)
        axes.set_xlabel(f"accuracy less {baseline.name}'s of the same seed, points")
    axes.set_title(described(found, "seeds", ", mean, 95 % interval"), size=9)
    legend(figure, axes)
    return figure


def effective(one: Finding) -> np.ndarray:
    """Effective maps after training, a fraction of all, of the seeds that finished."""
    values = one.end.get("effective_maps", np.full(len(one.finished), np.nan))
    return np.asarray(values[one.finished])


def against_effective(found: Findings) -> Figure:
    """Accuracy against the effective maps after training: a cross a method."""
    figure, (axes,) = blank((1, 1), (7.5, 4.6))
    colours = [ROLES[INTERVENTIONS[name].role] for name in found]
    bars: list[np.ndarray] = []  # `(2, 2)`: x, then y, of both ends
    for one, colour in zip(found.values(), colours, strict=True):
        across, up = (interval(x) for x in (effective(one), one.accuracy[one.finished]))
        at, reach = np.transpose([across, up])
        if sum(one.finished) < ENOUGH:
            reach = np.zeros(2)
        axes.errorbar(*at, *reach[::-1], fmt="o", color=colour, markersize=4, linewidth=1)
        bars += [at[:, None] + np.outer(way, [-1, 1]) for way in np.diag(reach)]
    axes.set(xlabel="effective maps after training, of all", ylabel="accuracy %")
    rank = correlations(found).get(("effective_maps", "end"))
    of_ranks = f"; Spearman's correlation {told(rank)}" if rank else ""
    axes.set_title(described(found, "seeds' mean", ", 95 % interval") + of_ranks, size=9)
    axes.margins(x=0.15)  # names have room
    x, y = np.mean(bars[::2], axis=2).T
    textalloc.allocate(
        axes,
        x,
        y,
        list(found),
        x_scatter=x,
        y_scatter=y,
        x_lines=[ends[0] for ends in bars],
        y_lines=[ends[1] for ends in bars],
        textsize=7,
        textcolor=colours,
        linecolor="0.6",
        linewidth=0.5,
        min_distance=0.01,
        max_distance=0.3,
        avoid_label_lines_overlap=True,
        avoid_crossing_label_lines=True,
    )
    return figure


def layers(found: Findings) -> Figure:
    """Similarity and effective number of the maps of each layer, before and after."""
    known = {x: {name: by_layer(found[name], x) for name in found} for x in OF_LAYERS}
    for column in OF_LAYERS:
        if not any(np.isfinite(ends).any() for ends in known[column].values()):
            del known[column]
    figure, panels = blank((1, max(len(known), 1)), (3.4 * max(len(known), 2), 4.2))
    for axes, (column, of) in zip(panels, known.items(), strict=False):
        for place, (name, ends) in enumerate(of.items()):
            x = np.arange(ends.shape[1])
            apart = x + (place - (len(of) - 1) / 2) * 0.8 / len(of)
            style = {"color": colour_of(name), "markersize": 4}
            axes.vlines(apart, *ends, color=colour_of(name), linewidth=1)
            axes.plot(apart, ends[0], "o", markerfacecolor="white", **style)
            axes.plot(apart, ends[1], "o", label=name, **style)
        axes.set_xticks(x, [f"conv {i + 1}" if len(x) < 6 else f"{i + 1}" for i in x])
        axes.set_title(OF_LAYERS[column], size=9)
        axes.set_ylim(0, None)
        axes.grid(axis="y", color="0.92")
    caption = "conv layers; hollow: before training, filled: after; mean of the seeds"
    figure.suptitle(described(found, caption))
    legend(figure, panels[0])
    return figure


def kernel_matrices(found: Findings, arrays: Arrays) -> Figure:
    """The similarity of all pairs of kernels in the middle conv layer."""

    def of(path: str, arrays: Mapping[str, np.ndarray], when: str) -> np.ndarray:
        kernel = arrays[f"{when}/{path}/kernel"]
        return np.asarray(cs.similarity_matrix(kernel, **SCALE_FREE._asdict()))

    what = "Kernel similarity (scale-free, cross-channel) of every two of the {} kernels"
    return matrices(found, arrays, of, what, "mean {mean:.2f}")


def map_matrices(found: Findings, arrays: Arrays) -> Figure:
    """The correlation of all pairs of feature maps in the middle conv layer."""

    def of(path: str, arrays: Mapping[str, np.ndarray], when: str) -> np.ndarray:
        matrix = arrays[f"{when}/{path}/correlation"]
        return np.abs(np.nan_to_num(matrix))  # maps that are constant have none

    what = "|Correlation| of every two of the {} feature maps, before the activation,"
    return matrices(found, arrays, of, what, "{effective:.1f} effective maps")


def has_maps(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether correlations of maps were kept of a method."""
    return any(name.endswith("/correlation") for name in arrays)


def matrices(
    found: Findings,
    arrays: Arrays,
    matrix_of: Callable[[str, Mapping[str, np.ndarray], str], np.ndarray],
    what: str,
    told: str,
) -> Figure:
    """A matrix with entries in [0, 1] of each of a few, before and after training."""
    names = [name for name in SHOWN if name in found] or list(found)[: len(SHOWN)]
    figure, grid = blank((2, len(names)), (2.3 * len(names) + 1.4, 6.2))
    for column, name in enumerate(names):
        known, gone = arrays(name), found[name].diverged_at[0]
        layers = [x.split("/", 1)[1] for x in known if x.startswith("start/")]
        layers = [x.removesuffix("/kernel") for x in layers if x.endswith("/kernel")]
        layer = layers[len(layers) // 2]
        for row, when in enumerate(("start", "end")):
            matrix = matrix_of(layer, known, when)
            count = len(matrix)
            figures = {
                "mean": matrix[~np.eye(count, dtype=bool)].mean() if count > 1 else 0,
                "effective": np.trace(matrix) ** 2 / max((matrix**2).sum(), 1),
            }
            axes = grid[row * len(names) + column]
            image = axes.imshow(matrix, vmin=0, vmax=1, cmap="magma")
            summary = textwrap.wrap(INTERVENTIONS[name].summary, 30)
            lines = [name, *summary, ""] if row == 0 else []
            lines += [f"diverged at epoch {gone}"] if row and gone else []
            axes.set_title("\n".join([*lines, told.format(**figures)]), size=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    grid[0].set_ylabel("before training")
    grid[len(names)].set_ylabel("after training")
    figure.colorbar(image, ax=list(grid), shrink=0.6)
    figure.supxlabel(f"{what.format(count)} of {layer}, first seed", size=9)
    return figure


def sizes(found: Mapping[str, Findings], parameters: Mapping[str, int]) -> Figure:
    """Test accuracy of networks of several widths against their numbers of parameters."""
    figure, (axes,) = blank((1, 1), (7, 4.4))
    parameters = dict(sorted(parameters.items(), key=lambda each: each[1]))
    names = [name for name in FOLLOWED if sum(name in found[x] for x in parameters) > 1]
    for name, marker in zip(names, itertools.cycle("osD^v<>")):
        known = {x: found[x][name] for x in parameters if name in found[x]}
        spreads = [interval(one.accuracy[one.finished]) for one in known.values()]
        axes.errorbar(
            [parameters[x] for x in known],
            [one.mean for one in spreads],
            yerr=[one.reach for one in spreads],
            **{"color": colour_of(name), "marker": marker, "markersize": 4, "capsize": 3},
            **{"label": name, "alpha": 0.7},
        )
    axes.set_xscale("log")
    axes.set_xmargin(0.15)  # room for the labels below the first and the last
    ticks, before = [], 0
    for name, number in parameters.items():  # one close to the last has its name below
        ticks.append("\n\n" * (number < 1.3 * before) + f"{number:,}\n{name}")
        before = number
    axes.set_xticks(list(parameters.values()), ticks)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="parameters, on a log axis", ylabel="test accuracy %")
    axes.set_title("mean of the seeds, 95 % interval", size=9)
    legend(figure, axes)
    return figure


def blank(grid: tuple[int, int], size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure, and its panels row by row."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels = figure.subplots(*grid, squeeze=False).ravel()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def curve(axes: Axes, name: str, rows: Sequence[np.ndarray]) -> None:
    """The mean of each epoch's seeds, and its interval where they are enough."""
    columns = [column[np.isfinite(column)] for column in np.transpose(rows)]
    middle, reach = np.array([interval(column) for column in columns]).reshape(-1, 2).T
    epochs, colour = np.arange(1, len(middle) + 1), colour_of(name)
    axes.plot(epochs, middle, color=colour, linewidth=1.5, label=name)
    if min(map(len, columns), default=0) >= ENOUGH:
        low, high = middle - reach, middle + reach
        axes.fill_between(epochs, low, high, color=colour, alpha=0.1, lw=0)


def colour_of(name: str) -> str:
    """The same of a method in every plot."""
    others = list(FOLLOWED.values())
    return FOLLOWED.get(name, others[list(INTERVENTIONS).index(name) % len(others)])


def by_layer(one: Finding, column: str) -> np.ndarray:
    """A column of `layers.csv` before and after training, `(2, layers)`.

    The mean over the seeds that finished; NaN where it is not known.
    """
    rows = one.outcome.layers
    finished = set(np.array(one.seeds)[one.finished])
    epochs = [row.epoch for row in rows]
    values: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        known = values.setdefault((row.epoch, row.layer), [])
        if row.seed in finished:
            known.append(getattr(row, column))
    names = dict.fromkeys(row.layer for row in rows)
    ends = (min(epochs), max(epochs))
    return np.array([[mean(np.array(values[end, x])) for x in names] for end in ends])


def described(found: Findings, what: str, of_many: str = "") -> str:
    """A title that says what is shown, and what is not there."""
    many = max((one.finished.sum() for one in found.values()), default=0) >= ENOUGH
    gone = [name for name, one in found.items() if not one.finished.any()]
    missing = [f"all seeds diverged: {', '.join(gone)}"] if gone else []
    return "\n".join([what + (of_many if many else ""), *missing])


def legend(figure: Figure, axes: Axes) -> None:
    """The names of the lines of one panel, below all."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        options = {"ncols": 4, "frameon": False, "fontsize": 7}
        figure.legend(handles, labels, loc="outside lower center", **options)
