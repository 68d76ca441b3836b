"""The one table of a comparison, and the rows of its CSV files."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from experiments.compare.plan import Outcomes
from experiments.compare.statistics import (
    MEASURES,
    Correlation,
    Difference,
    Finding,
    Findings,
    correlations,
)
from experiments.interval import NONE, mean, spread
from experiments.interventions import INTERVENTIONS
from experiments.table import WIDEST, aligned, stacked

LEGEND_OF_FIXED = """\
± is the 95 % interval over seeds (Student t); two seeds are shown themselves. Differences
are of equal seeds; a star marks those that chance hardly explains (paired t-test,
Benjamini and Hochberg). → leads from before training to after it. Similarities and
effective maps, a fraction of the channels, are means over the conv layers."""
LEGEND = f"""\
{LEGEND_OF_FIXED} Calibration error and
accuracy under noise and blur are the baseline's in its own row, and differences from it
in the others."""
Cell = Callable[[Finding], str]
OTHERS = {
    "calibration": "calibration\nerror, points",
    "noise": "accuracy %\nunder noise",
    "blur": "accuracy %\nunder blur",
}


def table(found: Findings, tuned: bool = False, width: int = WIDEST) -> str:
    """The methods side by side, and what to know about them.

    Where strengths and learning rates were tuned, they are shown, and the best is first.
    A column in which nothing is known is left out; those too many for the width follow in
    tables of their own.
    """
    order = by_gain(found) if tuned else list(found)
    columns = {"": order}
    for heading, cell in columns_of(found, tuned).items():
        cells = [cell(found[name]) for name in order]
        if set(cells) - {"", NONE}:
            columns[heading] = cells
    return "\n".join([stacked(columns, width), *notes(found)])


def columns_of(found: Findings, tuned: bool) -> dict[str, Cell]:
    """Heading and cell of each column."""
    any_of = next(iter(found.values()))
    columns: dict[str, Cell] = {
        "strength": strength,
        "learning\nrate": learning_rate,
        "besides,\ndecay": lambda one: f"{one.trial.decay:g}" if one.trial.decay else "",
        "accuracy\n%": lambda one: spread(one.accuracy[one.finished]),
        f"less\n{any_of.baseline}'s": lambda one: beside(one, one.gain),
        "less its\ncontrol's": lambda one: beside(one, one.beyond),
        f"epochs to\n{any_of.target:.1f} %": epochs,
        "epochs\nsooner": sooner,
        **{heading: other(name) for name, heading in OTHERS.items()},
        "feature-map\nsimilarity": course("feature_map_similarity"),
        "after\nactivation": course("feature_map_similarity_activated"),
        "centered": course("feature_map_similarity_centered"),
        "after it,\ncentered": course("feature_map_similarity_activated_centered"),
        "effective\nmaps": course("effective_maps", "{:.2f}"),
        "kernel\nsimilarity": course("kernel_similarity", "{:.2f}"),
        "paper's\nloss": course("paper_loss", "{:.3g}"),
        "kernel\nnorm": course("norm", "{:.3g}"),
        "time\ns": lambda one: f"{one.outcome.scores[0].seconds:.0f}",
    }
    left_out: tuple[str, ...] = ("paper", "time")
    if not tuned:
        left_out = ("strength", "learning", "besides", "epochs\nsooner", "centered")
        left_out += ("after it", *OTHERS.values())
    return {x: cell for x, cell in columns.items() if not x.startswith(left_out)}


def overview(found: Mapping[str, Findings]) -> str:
    """Gain of every method in every setting."""
    baselines = (each[next(iter(each.values())).baseline] for each in found.values())
    accuracies = [f"{spread(one.accuracy[one.finished])}  " for one in baselines]
    rows = [["the baseline itself, %", *accuracies]]
    for name in INTERVENTIONS:
        ones = [each.get(name) for each in found.values()]
        cells = [beside(one, one.gain) if one else "" for one in ones]
        if any(cells):
            rows.append([name, *cells])
    headings = ["accuracy less the\nbaseline's, points", *found]
    return stacked(dict(zip(headings, zip(*rows, strict=True), strict=True)))


def notes(found: Findings) -> list[str]:
    """Which seeds diverged."""
    lines = []
    for name, one in found.items():
        gone = one.diverged_at[one.diverged_at > 0]
        if len(gone):
            at = ", ".join(map(str, np.unique(gone)))
            many = f"{len(gone)} of {len(one.accuracy)} seeds"
            others = "; its row is of the others" if one.finished.any() else ""
            lines.append(f"{name}: {many} diverged at epoch {at}{others}")
    return lines


def beside(one: Finding, apart: Difference) -> str:
    """A difference, with a star if it is clear; nothing for the baseline."""
    if one.name == one.baseline or not len(apart.values):
        return ""
    return spread(apart.values, "+.2f") + (" *" if apart.clear else "  ")


def other(column: str) -> Cell:
    """What the baseline has, or the difference from it."""

    def cell(one: Finding) -> str:
        values = one.others[column][one.finished]
        if np.isnan(values).all():
            return NONE
        if one.name == one.baseline:
            return spread(values) + "  "
        return beside(one, one.apart[column])

    return cell


def correlation_table(found: Findings) -> str:
    """Rank correlations of accuracy over methods; nothing where they are few."""
    known = correlations(found)
    if not known:
        return ""
    rows = [
        [name.replace("_", " "), *(told(known.get((name, x))) for x in ("start", "end"))]
        for name in MEASURES
        if {(name, "start"), (name, "end")} & known.keys()
    ]
    count = max(one.methods for one in known.values())
    head = f"accuracy over {count} methods:\nSpearman's correlation with"
    return aligned([head, "before\ntraining", "after\ntraining"], rows)


def told(one: Correlation | None) -> str:
    """With the ends of the interval, if it has one."""
    if one is None:
        return ""
    ends = "" if np.isnan(one.low) else f" ({one.low:+.2f} to {one.high:+.2f})"
    return f"{one.value:+.2f}{ends}"


def strength(one: Finding) -> str:
    """Of what was tuned, and whether none beyond it was tried."""
    if not one.trial.strength:
        return ""
    return f"{one.trial.strength:g}{', end' if one.at_end else ''}"


def learning_rate(one: Finding) -> str:
    """That was chosen, and whether none beyond it was tried."""
    return f"{one.trial.learning_rate:g}{', end' if one.rate_at_end else ''}"


def epochs(one: Finding) -> str:
    """The mean over seeds, and how many get there if not all do."""
    reached, count = one.epochs_to[np.isfinite(one.epochs_to)], len(one.epochs_to)
    if not len(reached):
        return NONE
    return f"{reached.mean():.1f}{part(len(reached), count)}"


def sooner(one: Finding) -> str:
    """Than the baseline, and of how many seeds that is known if not of all."""
    text = beside(one, one.sooner).rstrip()
    return text and text + part(len(one.sooner.values), len(one.epochs_to))


def part(some: int, count: int) -> str:
    """How many of all, if not all."""
    return "" if some == count else f" ({some} of {count})"


def course(measure: str, form: str = "{:.3f}") -> Cell:
    """A measure before and after training, of the seeds that finished."""

    def cell(one: Finding) -> str:
        means = [mean(end[measure][one.finished]) for end in (one.start, one.end) if end]
        if not means or np.isnan(means).any():
            return NONE
        return " → ".join(re.sub(r"e([+-])0", r"e\1", form.format(x)) for x in means)

    return cell


def by_gain(found: Findings) -> list[str]:
    """Methods, the largest gain first; those that diverged last."""
    means = {name: mean(one.gain.values) for name, one in found.items()}
    return sorted(found, key=lambda name: np.nan_to_num(-means[name], nan=np.inf))


def seed_rows(found: Findings) -> tuple[list[str], list[list]]:
    """Header and rows, one for each method and seed."""
    header = ["method", "seed", "strength", "diverged_at", "accuracy"]
    header += [f"{name}_{when}" for when in ("start", "end") for name in MEASURES]
    rows = []
    for name, one in found.items():
        for place, score in enumerate(one.outcome.scores):
            gone = score.diverged_at or None
            row = [name, score.seed, one.trial.strength, gone, score.accuracy]
            row += [ends[x][place] for ends in (one.start, one.end) for x in MEASURES]
            rows.append(row)
    return header, rows


def curve_rows(outcomes: Outcomes) -> tuple[list[str], list[list]]:
    """Header and rows, one for each method, seed and epoch."""
    rows = [
        [trial.method, row.seed, row.epoch, row.accuracy, row.loss]
        for trial, outcome in outcomes.items()
        for row in outcome.epochs
    ]
    return ["method", "seed", "epoch", "accuracy", "loss"], rows
