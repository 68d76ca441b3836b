"""What to use, in words that follow from the findings."""

from collections.abc import Mapping

import numpy as np

from experiments.study.findings import Finding
from experiments.study.treatments import TREATMENTS, Kind

Found = Mapping[str, Mapping[str, Finding]]
SIMILAR = Kind.SIMILARITY


def verdict(found: Found) -> str:
    """The paragraphs that the page opens with.

    Args:
        found: by setting and treatment.
    """
    lines = ["## What to use", ""]
    for setting, findings in found.items():
        lines.append(f"- **{setting}**: {accuracy(findings)} {maps(findings)}")
    return "\n".join([*lines, ""])


def accuracy(findings: Mapping[str, Finding]) -> str:
    """Which treatments change the accuracy, and whether a control does as well."""
    better = clear_of(findings, better=True)
    worse = clear_of(findings, better=False)
    ours = [name for name in better if TREATMENTS[name].kind is SIMILAR]
    others = [name for name in better if TREATMENTS[name].kind is not SIMILAR]
    if not better:
        text = (
            f"none of {len(findings) - 1} treatments is clearly better than the baseline."
        )
    elif not ours:
        text = (
            f"no form of Convolutional Similarity is clearly better than the baseline; "
            f"{listed(findings, others)} "
            f"{'is' if len(others) == 1 else 'are'}."
        )
    else:
        text = f"clearly better than the baseline: {listed(findings, ours)}."
        if others:
            text += f" But so {'is' if len(others) == 1 else 'are'}, without "
            text += f"Convolutional Similarity, {listed(findings, others)}."
    if worse:
        text += f" Clearly worse: {listed(findings, worse)}."
    return text


def clear_of(findings: Mapping[str, Finding], *, better: bool) -> list[str]:
    """Treatments that clearly differ, the farthest first."""
    names = [
        name
        for name, finding in findings.items()
        if finding.clear and (finding.gain.mean > 0) == better
    ]
    return sorted(names, key=lambda name: -abs(findings[name].gain.mean))


def listed(findings: Mapping[str, Finding], names: list[str]) -> str:
    """Names with their gains."""
    return ", ".join(
        f"{name} ({findings[name].gain.mean:+.2f} ± {findings[name].gain.reach:.2f})"
        for name in names
    )


def maps(findings: Mapping[str, Finding]) -> str:
    """Which treatment leaves the least similar maps."""
    end = {name: f.similarity["before", "end"] for name, f in findings.items()}
    ours = [
        name
        for name in findings
        if TREATMENTS[name].kind is SIMILAR and np.isfinite(end[name])
    ]
    if not ours:
        return ""
    least = min(ours, key=end.__getitem__)
    return (
        f"After training the maps before the activation are {end['none']:.3f} alike; "
        f"the least of all forms, {end[least]:.3f}, after {least}."
    )
