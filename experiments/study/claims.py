"""What became of the paper's claims, in sentences that follow from the findings."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.interval import Interval
from experiments.study.findings import Finding
from experiments.study.plan import BASELINE
from experiments.study.settings import BY_WIDTH, SETTINGS
from experiments.study.sizes import parameters
from experiments.study.treatments import TREATMENTS, Kind
from experiments.study.verdict import Findings, beyond_control, is_form, signed

INITIALIZATIONS = (
    "paper-init",
    "scale-free-init",
    "scale-free-shrunk",
    "scale-free-scaled",
)
REGULARIZERS = ("paper-reg", "scale-free-reg")
COUPLED, DECOUPLED = "paper-reg", "paper-decoupled-reg"
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
        *told(found, INITIALIZATIONS, change("start"), lower=True),
        "",
        "   After training:",
        *told(found, forms, change("end"), lower=True),
        "2. *It makes networks more accurate.* Points of test accuracy beyond the "
        "control's, or beyond the baseline's where there is no control:",
        *told(found, forms, beyond_control),
        "3. *Training takes fewer epochs.* Fewer than the baseline's by:",
        *told(found, forms, lambda finding: finding.sooner),
        f"4. *Smaller models are as accurate.* {of_widths(found)}",
        f"5. *Orthogonal kernels do not do it.* {of_orthogonality(found)}",
        "6. *And with momentum?* An open question of the paper. Points of test accuracy "
        "beyond the baseline's, with the gradient added before the optimizer, or after "
        "it (decoupled):",
        *of_momentum(found),
    ]
    note = (
        "A claim holds of a setting where its 95 % interval lies beyond 0. Of forty "
        "such figures chance alone makes one."
    )
    return "\n".join(["## The paper's claims", "", note, "", *lines, ""])


def change(moment: str) -> Measure:
    """How much less similar the maps before the activation are than the baseline's."""
    return lambda finding: finding.change["before", moment]


def told(
    found: Mapping[str, Findings],
    names: Sequence[str],
    measure: Measure,
    *,
    lower: bool = False,
) -> list[str]:
    """A line for each treatment: in how many settings the claim holds, and the figures.

    A claim holds where the interval lies above 0, or below if `lower`.
    """
    lines = []
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
            opposite = f", the opposite in {against}" if against else ""
            figures = ", ".join(
                f"{signed(x, 3 if lower else 2)} in {setting}"
                for setting, x in values.items()
            )
            lines.append(
                f"   - {name}: holds in {holding} of {len(values)}{opposite} ({figures})"
            )
    return lines or ["   - not measured yet"]


def of_widths(found: Mapping[str, Findings]) -> str:
    """The best form in narrower networks, beside the baseline of the next wider one."""
    widths = [name for name in BY_WIDTH if name in found]
    sentences = []
    for narrow, wide in itertools.pairwise(widths):
        name = best_of(found[narrow], is_form)
        if name is not None:
            there = found[wide][BASELINE].accuracy
            loss = less(found[narrow][BASELINE].accuracy, there)
            left = less(found[narrow][name].accuracy, there)
            sentences.append(
                f"At half of {wide}'s width, {parameters(SETTINGS[narrow].config):,} "
                f"parameters and not {parameters(SETTINGS[wide].config):,}, the baseline "
                f"is {signed(loss)} points from {wide}'s, and {name} {signed(left)}."
            )
            other = best_of(found[narrow], is_control)
            if other is not None:
                apart = less(found[narrow][other].accuracy, there)
                sentences.append(f"Without the similarity, {other} is {signed(apart)}.")
    return " ".join(sentences) or "Not measured yet."


def of_momentum(found: Mapping[str, Findings]) -> list[str]:
    """Gains of the paper's regularizer before and after the optimizer."""
    return [
        f"   - {setting}: {signed(findings[COUPLED].gain)}, and decoupled "
        f"{signed(findings[DECOUPLED].gain)}"
        for setting, findings in found.items()
        if {COUPLED, DECOUPLED} <= findings.keys()
    ] or ["   - not measured yet"]


def of_orthogonality(found: Mapping[str, Findings]) -> str:
    """The best orthogonal kernels beside the best form, setting by setting."""
    sentences = []
    for setting, findings in found.items():
        ours, theirs = best_of(findings, is_form), best_of(findings, is_orthogonality)
        if ours is not None and theirs is not None:
            tried = sum(map(is_orthogonality, findings))
            sentences.append(
                f"In {setting} the best of {tried} that make kernels orthogonal, "
                f"{theirs}, gains {beside_control(findings[theirs])}; the best form of "
                f"Convolutional Similarity, {ours}, {beside_control(findings[ours])}."
            )
    return " ".join(sentences) or "Not measured yet."


def beside_control(finding: Finding) -> str:
    """Its gain, and what of it is beyond its control, if there is one."""
    gain, beyond = finding.gain, beyond_control(finding)
    more = "" if beyond == gain else f", {signed(beyond)} beyond its control"
    return f"{signed(gain)} points{more}"


def best_of(findings: Findings, belongs: Callable[[str], bool]) -> str | None:
    """The treatment that gains most beyond its control; None if none is known to."""
    gains = {
        name: beyond_control(finding).mean
        for name, finding in findings.items()
        if belongs(name) and np.isfinite(beyond_control(finding).mean)
    }
    return max(gains, key=lambda name: gains[name], default=None)


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
