"""What the results say: means over seeds, their intervals, and one table of them."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from experiments.classify.results import Result
from experiments.interval import Interval, interval
from experiments.measurement import Layers
from experiments.table import aligned

BASELINE = "none"

MEASURES: dict[str, Callable[[Layers], np.ndarray]] = {
    "feature_map_similarity": lambda measured: measured.before.mean(axis=-1),
    "feature_map_similarity_activated": lambda measured: measured.after.mean(axis=-1),
    "paper_loss": lambda measured: measured.paper_loss.sum(-1),
    "scale_free_loss": lambda measured: measured.scale_free_loss.sum(-1),
    "norm": lambda measured: (measured.norm**2).sum(-1) ** 0.5,
}


def difference(result: Result, baseline: Result) -> np.ndarray:
    """Final accuracy less the baseline's, of the seeds that finished in both."""
    both = result.finished & baseline.finished
    return result.accuracy[both, -1] - baseline.accuracy[both, -1]


def epochs_to_reach(accuracy: np.ndarray, target: float) -> np.ndarray:
    """First epoch, counted from 1, with at least that accuracy; NaN where there is none.

    >>> epochs_to_reach(np.array([[50.0, 60.0, 55.0], [50.0, 50.0, 50.0]]), 60.0)
    array([ 2., nan])
    """
    reached = accuracy >= target - 1e-6  # a mean of equal numbers may be rounded up
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1.0, np.nan)


def seed_rows(results: Mapping[str, Result]) -> tuple[list[str], list[list]]:
    """Header and rows, one for each method and seed; NaN once a seed has diverged."""
    header = ["method", "seed", "strength", "diverged_at", "accuracy"]
    header += [f"{name}_{when}" for when in ("start", "end") for name in MEASURES]
    rows = []
    for method, result in results.items():
        for seed, diverged_at in enumerate(result.diverged_at.tolist()):
            accuracy = result.accuracy[seed, -1]
            row = [method, seed, result.strength, diverged_at or None, accuracy]
            for measurement in (result.start, result.end):
                row += [measure(measurement)[seed] for measure in MEASURES.values()]
            rows.append(row)
    return header, rows


def curve_rows(results: Mapping[str, Result]) -> tuple[list[str], list[list]]:
    """Header and rows, one for each method, seed and epoch."""
    rows = [
        [method, seed, epoch + 1, result.accuracy[seed, epoch], result.loss[seed, epoch]]
        for method, result in results.items()
        for seed, epoch in np.ndindex(result.accuracy.shape)
    ]
    return ["method", "seed", "epoch", "accuracy", "loss"], rows


def table(results: Mapping[str, Result]) -> str:
    """The methods side by side, and what to know about them.

    The columns that compare with `none` are there if it is.
    """
    baseline = results.get(BASELINE)
    if baseline is not None and not baseline.finished.any():
        baseline = None
    header = (
        "method",
        "test\naccuracy %",
        *(["difference\nto none", "epochs to\nits final"] if baseline else []),
        *(heading for heading, _ in ARROWS.values()),
        "time\ns",
    )
    rows = []
    notes = []
    for method, result in results.items():
        finished = result.finished
        cells = [method, _mean(interval(result.accuracy[finished, -1]))]
        if baseline is not None:
            gain = interval(difference(result, baseline))
            target = float(baseline.accuracy[baseline.finished, -1].mean())
            epochs = epochs_to_reach(result.accuracy[finished], target)
            signed = "+" * (gain.mean >= 0) + _mean(gain)
            cells += ["" if method == BASELINE else signed, _epochs(epochs)]
        for measure, (_, form) in ARROWS.items():
            start, end = (
                MEASURES[measure](measured)[finished].mean() if finished.any() else np.nan
                for measured in (result.start, result.end)
            )
            cells.append(f"{form(start)} → {form(end)}" if finished.any() else "-")
        rows.append([*cells, f"{result.seconds:.1f}"])
        if not finished.all():
            at = ", ".join(map(str, np.unique(result.diverged_at[~finished])))
            others = "; its row is of the others" if finished.any() else ""
            notes.append(
                f"{method}: {(~finished).sum()} of {len(finished)} seeds diverged at "
                f"epoch {at}{others}"
            )
    return "\n".join([aligned(header, rows), *notes])


def _mean(value: Interval) -> str:
    if np.isnan(value.mean):
        return "-"
    reach = "" if np.isnan(value.reach) else f" ± {value.reach:.2f}"
    return f"{value.mean:.2f}{reach}"


def _epochs(epochs: np.ndarray) -> str:
    reached = epochs[~np.isnan(epochs)]
    if not len(reached):
        return "-"
    some = "" if len(reached) == len(epochs) else f" ({len(reached)} of {len(epochs)})"
    return f"{reached.mean():.1f}{some}"


def _short(value: float) -> str:
    """Two or three significant digits.

    >>> [_short(value) for value in (0.00123, 0.0123, 1.5, 12.34, 1234.5, 1e6)]
    ['1.2e-3', '0.012', '1.50', '12.3', '1234', '1.0e6']
    """
    if value >= 1e5 or 0 < value < 1e-2:
        return re.sub(r"e\+?(-?)0?", r"e\1", f"{value:.1e}")
    return f"{value:.0f}" if value >= 100 else f"{value:#.{3 if value >= 0.1 else 2}g}"


# Headings of the columns that show a measure before and after training, and its format.
ARROWS: dict[str, tuple[str, Callable[[float], str]]] = {
    "feature_map_similarity": ("feature-map\nsimilarity", "{:.3f}".format),
    "paper_loss": ("paper's\nloss", _short),
    "scale_free_loss": ("scale-free\nloss", "{:.2f}".format),
    "norm": ("kernel\nnorm", _short),
}
