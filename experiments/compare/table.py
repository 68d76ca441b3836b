"""The one table of a comparison, and the rows of its CSV files."""

from collections.abc import Callable, Mapping

import numpy as np

from experiments.compare.plan import Outcomes
from experiments.compare.settings import BASELINE
from experiments.compare.statistics import MEASURES, Finding, Findings, mean_of_known
from experiments.interval import interval
from experiments.interventions import INTERVENTIONS
from experiments.table import aligned

NONE = "-"
# Of fewer seeds an interval says less than the seeds themselves.
ENOUGH = 3
LEGEND = (
    "± is the 95 % interval over seeds (Student t); two seeds are shown themselves. "
    "Differences are of equal seeds; * is one that chance hardly explains (paired "
    "t-test, Benjamini and Hochberg). → leads from before training to after it; "
    "similarities and effective maps, a fraction of the channels, are means over layers."
)


def table(found: Findings, tuned: bool = False) -> str:
    """The interventions side by side, and what to know about them.

    Args:
        found: by intervention.
        tuned: whether strengths and learning rates were chosen, which shows them.
    """
    order = by_gain(found) if tuned else list(found)
    columns = columns_of(found, tuned)
    cells = {
        heading: [cell(found[name]) for name in order]
        for heading, cell in columns.items()
    }
    shown = [heading for heading, column in cells.items() if any(map(known, column))]
    rows = [
        [name, *(cells[heading][place] for heading in shown)]
        for place, name in enumerate(order)
    ]
    return "\n".join([aligned(["", *shown], rows), *notes(found)])


def columns_of(found: Findings, tuned: bool) -> dict[str, Callable[[Finding], str]]:
    """Heading and cell of each column; one without a known cell is not shown."""
    targets = {finding.target for finding in found.values()}
    target = f"{targets.pop():.1f} %" if len(targets) == 1 else "target"
    chosen: dict[str, Callable[[Finding], str]] = {
        "strength": strength,
        "learning\nrate": lambda one: f"{one.trial.learning_rate:g}",
    }
    described: dict[str, Callable[[Finding], str]] = {
        "accuracy\n%": lambda one: spread(one.accuracy[one.finished]),
        "less\nnone's": lambda one: gain(one.gain, one.clear, one),
        "less its\ncontrol's": lambda one: gain(one.beyond, one.clear_of_control, one),
        f"epochs to\n{target}": epochs,
        "epochs\nsooner": lambda one: gain(one.sooner, False, one).rstrip(),
        "feature-map\nsimilarity": course("feature_map_similarity", "{:.3f}".format),
        "after\nactivation": course("feature_map_similarity_activated", "{:.3f}".format),
        "centered": course("feature_map_similarity_centered", "{:.3f}".format),
        "centered,\nafter it": course(
            "feature_map_similarity_activated_centered", "{:.3f}".format
        ),
        "effective\nmaps": course("effective_maps", "{:.2f}".format),
        "effective,\nafter it": course("effective_maps_activated", "{:.2f}".format),
        "kernel\nsimilarity": course("kernel_similarity", "{:.2f}".format),
        "kernel\nnorm": course("norm", "{:.3g}".format),
        "time\ns": lambda one: f"{one.seconds:.0f}",
    }
    if tuned:
        return chosen | described
    for heading in (
        "epochs\nsooner",
        "centered",
        "centered,\nafter it",
        "effective,\nafter it",
    ):
        del described[heading]
    return described


def notes(found: Findings) -> list[str]:
    """Which seeds diverged."""
    lines = []
    for name, finding in found.items():
        gone = finding.diverged_at[finding.diverged_at > 0]
        if len(gone):
            at = ", ".join(map(str, np.unique(gone)))
            others = "; its row is of the others" if finding.finished.any() else ""
            lines.append(
                f"{name}: {len(gone)} of {len(finding.seeds)} seeds diverged at epoch "
                f"{at}{others}"
            )
    return lines


def overview(found: Mapping[str, Findings]) -> str:
    """Gain of every intervention in every setting."""
    names = [
        name
        for name in INTERVENTIONS
        if name != BASELINE and any(name in findings for findings in found.values())
    ]
    rows = [
        [
            name,
            *(
                gain(one[name].gain, one[name].clear, one[name]) if name in one else ""
                for one in found.values()
            ),
        ]
        for name in names
    ]
    baseline = [f"{spread(one[BASELINE].accuracy)}  " for one in found.values()]
    header = ["test accuracy less none's, points", *found]
    return aligned(header, [["none itself, %", *baseline], *rows])


def spread(values: np.ndarray, digits: int = 2, sign: str = "") -> str:
    """The mean and its interval, or the values themselves where they are few.

    >>> spread(np.array([1.0, 2.0, 3.0])), spread(np.array([1.0, 2.0]), sign="+")
    ('2.00 ± 2.48', '+1.00, +2.00')
    """
    if not len(values):
        return NONE
    if len(values) < ENOUGH:
        return ", ".join(f"{value:{sign}.{digits}f}" for value in values)
    mean, reach = interval(values)
    return f"{mean:{sign}.{digits}f} ± {reach:.{digits}f}"


def gain(values: np.ndarray, clear: bool, finding: Finding) -> str:
    """A difference, with a star if it is clear; nothing for the baseline."""
    if finding.trial.treatment == BASELINE or not len(values):
        return ""
    return spread(values, sign="+") + (" *" if clear else "  ")


def strength(finding: Finding) -> str:
    """Of what was tuned, and whether none beyond it was tried."""
    tried, value = INTERVENTIONS[finding.trial.treatment].tried, finding.trial.strength
    if len(tried) < 2:
        return "" if finding.trial.treatment == BASELINE else f"{value:g}"
    return f"{value:g}{', end' if value in (tried[0], tried[-1]) else ''}"


def epochs(finding: Finding) -> str:
    """The mean over seeds, and how many get there if not all do."""
    reached = finding.epochs_to[np.isfinite(finding.epochs_to)]
    if not len(reached):
        return "" if np.isnan(finding.target) else NONE
    all_of = len(reached) == len(finding.seeds)
    return f"{reached.mean():.1f}" + (
        "" if all_of else f" ({len(reached)} of {len(finding.seeds)})"
    )


def course(measure: str, form: Callable[[float], str]) -> Callable[[Finding], str]:
    """A measure before and after training, of the seeds that finished."""

    def cell(finding: Finding) -> str:
        moments = [
            mean_of_known(moment[measure][finding.finished])
            for moment in (finding.start, finding.end)
            if moment
        ]
        if not moments or np.isnan(moments[-1]):
            return NONE
        return " → ".join(map(form, moments))

    return cell


def known(cell: str) -> bool:
    """Whether a cell says anything."""
    return cell.strip() not in ("", NONE)


def by_gain(found: Findings) -> list[str]:
    """Interventions, the largest gain first; those that diverged last."""

    def size(name: str) -> float:
        if name == BASELINE:
            return 0.0
        gain = found[name].gain
        return float(gain.mean()) if len(gain) else -np.inf

    return sorted(found, key=size, reverse=True)


def seed_rows(found: Findings) -> tuple[list[str], list[list]]:
    """Header and rows, one for each intervention and seed."""
    header = ["method", "seed", "strength", "diverged_at", "accuracy"]
    header += [f"{name}_{when}" for when in ("start", "end") for name in MEASURES]
    rows = []
    for method, one in found.items():
        for place, seed in enumerate(one.seeds):
            gone = int(one.diverged_at[place]) or None
            row = [method, seed, one.trial.strength, gone, one.accuracy[place]]
            for measures in (one.start, one.end):
                row += [measures[name][place] for name in MEASURES]
            rows.append(row)
    return header, rows


def curve_rows(outcomes: Outcomes) -> tuple[list[str], list[list]]:
    """Header and rows, one for each intervention, seed and epoch."""
    rows = [
        [trial.treatment, row.seed, row.epoch, row.accuracy, row.loss]
        for trial, outcome in outcomes.items()
        for row in outcome.epochs
    ]
    return ["method", "seed", "epoch", "accuracy", "loss"], rows
