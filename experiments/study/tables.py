"""The tables of the results page."""

from collections.abc import Mapping

import numpy as np

from experiments.interval import Interval
from experiments.study.findings import Finding
from experiments.study.plan import BASELINE
from experiments.study.results import Trial
from experiments.study.treatments import TREATMENTS
from experiments.study.verdict import signed
from experiments.table import aligned


def overview(found: Mapping[str, Mapping[str, Finding]]) -> str:
    """Gain of every treatment in every setting; a star marks those that are clear."""
    names = [
        name
        for name in TREATMENTS
        if name != BASELINE and any(name in findings for findings in found.values())
    ]

    def cell(finding: Finding | None) -> str:
        if finding is None:
            return ""
        return known(finding.gain) + (" *" if finding.clear else "  ")

    rows = [
        [name, *(cell(findings.get(name)) for findings in found.values())]
        for name in names
    ]
    baseline = [f"{reach(findings[BASELINE].accuracy)}  " for findings in found.values()]
    header = ["test accuracy less none's, points", *found]
    return aligned(header, [["none itself, %", *baseline], *rows])


def accuracy_table(found: Mapping[str, Finding]) -> str:
    """Treatments by their gain in accuracy."""
    header = [
        "treatment",
        "strength",
        "learning rate",
        "test accuracy %",
        "less none's",
        "clear",
        "less its control's",
        "epochs sooner",
    ]
    rows = []
    for name in by_gain(found):
        finding = found[name]
        base = name == BASELINE
        rows.append(
            [
                name,
                "" if base else strength(finding.trial),
                f"{finding.trial.learning_rate:g}",
                reach(finding.accuracy) + count(finding),
                "" if base else known(finding.gain),
                ""
                if not finding.clear
                else "better"
                if finding.gain.mean > 0
                else "worse",
                beside_control(finding),
                "" if base else known(finding.sooner),
            ]
        )
    return aligned(header, rows)


def similarity_table(found: Mapping[str, Finding]) -> str:
    """Feature-map similarity, mean over layers: at the start, half way and at the end."""
    kinds = {
        "before": "before\nactivation",
        "after": "after\nactivation",
        "before_centered": "before,\ncentered",
        "after_centered": "after,\ncentered",
    }
    rows = [
        [
            name,
            f"{found[name].norm:.3g}",
            *(course(found[name], kind) for kind in kinds),
        ]
        for name in by_gain(found)
    ]
    return aligned(["treatment", "kernel norm\nat the start", *kinds.values()], rows)


def beside_control(finding: Finding) -> str:
    """Accuracy less its control's; a star if that is clear."""
    if np.isnan(finding.beyond.mean):
        return ""
    return signed(finding.beyond) + (" *" if finding.clear_of_control else "  ")


def course(finding: Finding, kind: str) -> str:
    """Of one kind of maps; a star where the end is not the baseline's."""
    start, middle, end = (
        f"{finding.similarity[kind, moment]:.3f}" for moment in ("start", "middle", "end")
    )
    change = finding.change[kind, "end"]
    star = "*" if abs(change.mean) > change.reach else " "
    return f"{start} → {middle} → {end} {star}"


def strength(trial: Trial) -> str:
    """Of a trial, and whether none beyond it was tried."""
    tried = TREATMENTS[trial.treatment].strengths
    end = trial.strength in (tried[0], tried[-1])
    return f"{trial.strength:g}{', end' if end else ''}"


def count(finding: Finding) -> str:
    """How many seeds there are, if some diverged."""
    finished, seeds = finding.finished
    return "" if finished == seeds else f" ({finished} of {seeds})"


def by_gain(found: Mapping[str, Finding]) -> list[str]:
    """Treatments, the largest gain first; those that diverged last."""

    def gain(name: str) -> float:
        mean = 0.0 if name == BASELINE else found[name].gain.mean
        return mean if np.isfinite(mean) else -np.inf

    return sorted(found, key=gain, reverse=True)


def reach(value: Interval) -> str:
    """A mean and its interval."""
    if np.isnan(value.mean):
        return "-"
    return f"{value.mean:.2f} ± {value.reach:.2f}"


def known(value: Interval) -> str:
    """A mean with its sign and its interval, or a dash."""
    return "-" if np.isnan(value.mean) else signed(value)
