"""What to use, in words that follow from the findings."""

from collections.abc import Callable, Mapping

import numpy as np

from experiments.interval import Interval
from experiments.study.findings import Finding, difference
from experiments.study.plan import BASELINE
from experiments.study.treatments import TREATMENTS, Kind
from experiments.table import aligned

Findings = Mapping[str, Finding]


def verdict(found: Mapping[str, Findings]) -> str:
    """The paragraphs that the page opens with.

    Args:
        found: by setting and treatment.
    """
    lines = [
        f"- **{setting}**: {accuracy(findings)}{maps(findings)}"
        for setting, findings in found.items()
    ]
    return "\n".join(
        [
            "## What to use",
            "",
            "The treatments of the highest mean accuracy on the test images, with their "
            "strengths, and their gains over the tuned baseline in percentage points. "
            "Being the best of many favours both sides.",
            "",
            f"```\n{with_and_without(found)}\n```",
            "",
            advice(found),
            "",
            *lines,
            "",
        ]
    )


def advice(found: Mapping[str, Findings]) -> str:
    """Which form of Convolutional Similarity helps in the most settings."""
    forms = {name for findings in found.values() for name in findings if is_form(name)}
    helped = {name: where(found, name, helps) for name in forms}
    hurt = {name: where(found, name, hurts) for name in forms}
    best = max(
        sorted(forms),
        key=lambda name: (len(helped[name]) - len(hurt[name]), largest(found, name)),
        default=None,
    )
    if best is None or not helped[best]:
        return (
            "So far no form of Convolutional Similarity is clearly better than both the "
            "tuned baseline and its control, in any setting."
        )
    gains = ", ".join(
        f"{signed(found[setting][best].gain)} points in {setting}"
        for setting in found
        if best in found[setting]
    )
    tried = sum(best in findings for findings in found.values())
    text = (
        f"Of all forms of Convolutional Similarity, **{best}** "
        f"({TREATMENTS[best].summary}) is better than the tuned baseline and than its "
        f"control in the most settings: clearly in {len(helped[best])} of {tried} "
        f"({gains})."
    )
    if hurt[best]:
        text += f" It hurts in {', '.join(hurt[best])}."
    return text


def with_and_without(found: Mapping[str, Findings]) -> str:
    """A table of the most accurate treatments with the similarity and without it."""
    rows = []
    for setting, findings in found.items():
        ours = most_accurate(findings, is_form)
        theirs = most_accurate(findings, lambda name: not is_form(name))
        if ours is not None and theirs is not None:
            sides = [
                cell
                for name in (ours, theirs)
                for cell in (in_strength(findings[name]), signed(findings[name].gain))
            ]
            apart = difference(findings[ours], findings[theirs])
            rows.append([setting, *sides, signed(apart)])
    header = [
        "setting",
        "best with Convolutional Similarity",
        "gain",
        "best without",
        "gain",
        "with less without",
    ]
    return aligned(header, rows)


def in_strength(finding: Finding) -> str:
    """The treatment and its strength; the baseline has none."""
    name, strength = finding.trial.treatment, finding.trial.strength
    return name if name == BASELINE else f"{name}, {strength:g}"


def accuracy(findings: Findings) -> str:
    """Which treatments change the accuracy, and whether a control does as well."""
    better = [name for name in by_size(findings) if better_than_none(findings[name])]
    helping = [name for name in better if is_form(name) and helps(findings[name])]
    rest = [name for name in better if is_form(name) and name not in helping]
    others = [name for name in better if not is_form(name)]
    worse = [name for name in by_size(findings) if hurts(findings[name])]
    text = (
        f"Better than the baseline and than its control: {listed(findings, helping)}."
        if helping
        else "No form is clearly better than the baseline and than its control."
    )
    rival = most_accurate(findings, lambda name: name != BASELINE and not is_form(name))
    if helping and rival is not None:
        apart = difference(findings[helping[0]], findings[rival])
        text += (
            f" {helping[0]} less {rival}, the best that does without Convolutional "
            f"Similarity: {signed(apart)}."
        )
    if rest:
        text += (
            " Better than the baseline, but not than its control: "
            f"{listed(findings, rest)}."
        )
    if others:
        text += f" Without Convolutional Similarity: {listed(findings, others)}."
    if worse:
        text += f" Worse than the baseline: {listed(findings, worse)}."
    return text


def maps(findings: Findings) -> str:
    """What becomes of the least similar maps in training; begins with a space."""
    start, end = (
        {name: finding.similarity["before", moment] for name, finding in findings.items()}
        for moment in ("start", "end")
    )
    forms = [name for name in findings if is_form(name) and np.isfinite(end[name])]
    if not forms:
        return ""
    least = min(forms, key=start.__getitem__)
    return (
        f" Maps before the activation are {start[BASELINE]:.3f} alike at first, and "
        f"{end[BASELINE]:.3f} in the end; with {least}, {start[least]:.3f} and "
        f"{end[least]:.3f}."
    )


def helps(finding: Finding) -> bool:
    """Whether it is better than the baseline, and than its control if it has one."""
    more = finding.clear_of_control and finding.beyond.mean > 0
    return better_than_none(finding) and (has_no_control(finding) or more)


def beyond_control(finding: Finding) -> Interval:
    """Its gain beyond its control's, or the whole gain if there is no control."""
    return finding.gain if has_no_control(finding) else finding.beyond


def has_no_control(finding: Finding) -> bool:
    """Whether nothing is there to be compared with but the baseline."""
    return TREATMENTS[finding.trial.treatment].control is None


def better_than_none(finding: Finding) -> bool:
    """Whether it clearly is."""
    return finding.clear and finding.gain.mean > 0


def hurts(finding: Finding) -> bool:
    """Whether it is clearly worse than the baseline."""
    return finding.clear and finding.gain.mean < 0


def is_form(name: str) -> bool:
    """Whether a treatment is a form of Convolutional Similarity."""
    return TREATMENTS[name].kind is Kind.SIMILARITY


def where(
    found: Mapping[str, Findings], name: str, holds: Callable[[Finding], bool]
) -> list[str]:
    """Settings in which something holds of a treatment."""
    return [
        setting
        for setting, findings in found.items()
        if name in findings and holds(findings[name])
    ]


def most_accurate(findings: Findings, belongs: Callable[[str], bool]) -> str | None:
    """The treatment of a kind that gains most; None if there is none."""
    gains = {
        name: finding.gain.mean
        for name, finding in findings.items()
        if belongs(name) and np.isfinite(finding.gain.mean)
    }
    return max(gains, key=lambda name: gains[name], default=None)


def largest(found: Mapping[str, Findings], name: str) -> float:
    """The largest gain of a treatment."""
    return max(f[name].gain.mean for f in found.values() if name in f)


def by_size(findings: Findings) -> list[str]:
    """Treatments, the largest difference first."""
    return sorted(findings, key=lambda name: -abs(findings[name].gain.mean))


def listed(findings: Findings, names: list[str]) -> str:
    """Names with their gains."""

    def of(name: str) -> str:
        finding = findings[name]
        if has_no_control(finding):
            less = ""
        elif np.isnan(finding.beyond.mean):
            less = "; its control is not measured yet"
        else:
            less = f"; {signed(finding.beyond)} to its control"
        return f"{name} ({signed(finding.gain)}{less})"

    return ", ".join(map(of, names))


def signed(value: Interval, digits: int = 2) -> str:
    """A mean with its sign and its interval.

    >>> signed(Interval(1.0, 0.25))
    '+1.00 ± 0.25'
    """
    return f"{value.mean:+.{digits}f} ± {value.reach:.{digits}f}"
