"""What became of the paper's claims, in sentences that follow from the findings."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.interval import Interval
from experiments.study.findings import Finding, difference
from experiments.study.plan import BASELINE
from experiments.study.settings import BY_WIDTH, SETTINGS
from experiments.study.sizes import parameters
from experiments.study.treatments import TREATMENTS, Kind
from experiments.study.verdict import (
    Findings,
    beyond_control,
    is_form,
    most_accurate,
    signed,
)

INITIALIZATIONS = (
    "paper-init",
    "paper-adjacent-init",
    "paper-norm-init",
    "scale-free-init",
    "scale-free-shrunk",
    "scale-free-scaled",
)
REGULARIZERS = ("paper-reg", "paper-adjacent-reg", "scale-free-reg")
MOMENTUM = (
    "paper-reg",
    "paper-decoupled-reg",
    "scale-free-reg",
    "scale-free-decoupled-reg",
    "decay",
)
# Beside their controls, which have as much decay.
WITH_DECAY = ("decay+scale-free-norm-init", "decay+scale-free-shrunk")
OF_THE_PAPER = [name for name in INITIALIZATIONS + REGULARIZERS if "paper" in name]
Measure = Callable[[Finding], Interval]


def claims(found: Mapping[str, Findings]) -> str:
    """A section that says of each claim what was found.

    Args:
        found: by setting and treatment.
    """
    forms = INITIALIZATIONS + REGULARIZERS
    lines = [
        "1. *It makes feature maps less similar.* Before the activation, less the "
        "baseline's; before training:",
        *told(found, INITIALIZATIONS, change("before", "start"), lower=True),
        "",
        "   Half way through training:",
        *told(found, forms, change("before", "middle"), lower=True),
        "",
        "   After training:",
        *told(found, forms, change("before", "end"), lower=True),
        "",
        "   After training, behind the activation:",
        *told(found, forms, change("after", "end"), lower=True),
        "2. *It makes networks more accurate.* Points of test accuracy beyond the "
        "control's, or beyond the baseline's where there is no control:",
        *told(found, forms + WITH_DECAY, beyond_control),
        "3. *Training takes fewer epochs.* Fewer than the baseline's by:",
        *told(found, forms, lambda finding: finding.sooner),
        "",
        "   Fewer than the control's by:",
        *told(found, forms + WITH_DECAY, lambda finding: finding.sooner_beyond),
        f"4. *Smaller models are as accurate.* {of_widths(found)}",
        f"5. *Orthogonal kernels do not do it.* {of_orthogonality(found)}",
        "6. *And with momentum?* An open question of the paper. Points of test accuracy "
        "beyond the baseline's; decoupled is the gradient added after the momentum, and "
        "batch-norm has a momentum of 0.9:",
        *of_momentum(found),
    ]
    note = (
        "A claim holds of a setting where its 95 % interval lies beyond 0. Of forty "
        "such figures chance alone makes one. Controls, like all else, have the strength "
        "that is best for them. Maps that are centered are in the tables of the settings."
    )
    return "\n".join(["## The paper's claims", "", note, "", *lines, ""])


def change(kind: str, moment: str) -> Measure:
    """How much more similar the maps are than the baseline's."""
    return lambda finding: finding.change[kind, moment]


def told(
    found: Mapping[str, Findings],
    names: Sequence[str],
    measure: Measure,
    *,
    lower: bool = False,
) -> list[str]:
    """In how many settings the claim holds, and a line of figures for each treatment.

    A claim holds where the interval lies above 0, or below if `lower`.
    """
    lines, counts = [], {True: [0, 0], False: [0, 0]}
    for name in names:
        values = {
            setting: measure(findings[name])
            for setting, findings in found.items()
            if name in findings and np.isfinite(measure(findings[name]).mean)
        }
        if values:
            sign = -1 if lower else 1
            holding = sum(sign * x.mean > x.reach for x in values.values())
            against = sum(-sign * x.mean > x.reach for x in values.values())
            counts[name in OF_THE_PAPER][0] += holding
            counts[name in OF_THE_PAPER][1] += len(values)
            opposite = f", the opposite in {against}" if against else ""
            figures = ", ".join(
                f"{signed(x, 3 if lower else 2)} in {setting}"
                for setting, x in values.items()
            )
            lines.append(
                f"   - {name}: holds in {holding} of {len(values)}{opposite} ({figures})"
            )
    if not lines:
        return ["   - not measured yet"]
    told_of = [
        f"{whose} in {counts[own][0]} of {counts[own][1]}"
        for own, whose in ((True, "the paper's loss"), (False, "scale-free forms"))
        if counts[own][1]
    ]
    return [f"   **Holds of {', of '.join(told_of)} measurements.**", "", *lines]


def of_widths(found: Mapping[str, Findings]) -> str:
    """The best form in narrower networks, beside the baseline of the next wider one."""
    widths = [name for name in BY_WIDTH if name in found]
    sentences = []
    for narrow, wide in itertools.pairwise(widths):
        name = most_accurate(found[narrow], is_form)
        if name is not None:
            there = found[wide][BASELINE].accuracy
            loss = less(found[narrow][BASELINE].accuracy, there)
            left = less(found[narrow][name].accuracy, there)
            sentences.append(
                f"At half of {wide}'s width, {parameters(SETTINGS[narrow].config):,} "
                f"parameters and not {parameters(SETTINGS[wide].config):,}, the baseline "
                f"is {signed(loss)} points from {wide}'s, and {name} {signed(left)}."
            )
            other = most_accurate(found[narrow], is_control)
            if other is not None:
                apart = less(found[narrow][other].accuracy, there)
                sentences.append(f"Without the similarity, {other} is {signed(apart)}.")
    return " ".join(sentences) or "Not measured yet."


def of_momentum(found: Mapping[str, Findings]) -> list[str]:
    """What regularizers gain, setting by setting, each as it was measured."""
    lines = []
    for setting, findings in found.items():
        known = [name for name in MOMENTUM if name in findings]
        if any("paper" in name for name in known):
            figures = ", ".join(f"{x} {signed(findings[x].gain)}" for x in known)
            lines.append(f"   - {setting}: {figures}")
    return lines or ["   - not measured yet"]


def of_orthogonality(found: Mapping[str, Findings]) -> str:
    """The best orthogonal kernels beside the best form, setting by setting."""
    sentences = []
    for setting, findings in found.items():
        ours = most_accurate(findings, is_form)
        theirs = most_accurate(findings, is_orthogonality)
        if ours is not None and theirs is not None:
            others = ", ".join(
                f"{name} {signed(findings[name].gain)}"
                for name in findings
                if is_orthogonality(name)
            )
            apart = difference(findings[ours], findings[theirs])
            sentences.append(
                f"In {setting} those that make kernels orthogonal gain: {others}; the "
                f"best form of Convolutional Similarity, {ours}, gains "
                f"{signed(findings[ours].gain)} points, {ours} less {theirs} "
                f"{signed(apart)}."
            )
    return " ".join(sentences) or "Not measured yet."


def is_control(name: str) -> bool:
    """Whether a treatment is a control."""
    return TREATMENTS[name].kind is Kind.CONTROL


def is_orthogonality(name: str) -> bool:
    """Whether a treatment makes kernels orthogonal, and no more."""
    return TREATMENTS[name].kind is Kind.ORTHOGONALITY


def less(ours: Interval, theirs: Interval) -> Interval:
    """The difference of two means, as if they were independent: a cautious interval.

    >>> less(Interval(3.0, 0.3), Interval(1.0, 0.4))
    Interval(mean=2.0, reach=0.5)
    """
    return Interval(ours.mean - theirs.mean, float(np.hypot(ours.reach, theirs.reach)))
