"""What goes with accuracy: less similar maps, or smaller kernels?"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

from experiments.study.findings import Finding
from experiments.study.verdict import Findings
from experiments.table import aligned

ENOUGH = 8  # treatments: of fewer, ranks say little
MEASURES: dict[str, Callable[[Finding], float]] = {
    "maps alike\nat the start": lambda finding: finding.similarity["before", "start"],
    "maps alike\nat the end": lambda finding: finding.similarity["before", "end"],
    "behind the\nactivation": lambda finding: finding.similarity["after", "end"],
    "kernel norm\nat the start": lambda finding: finding.norm,
}


def company(found: Mapping[str, Findings]) -> str:
    """A section with the rank correlation of accuracy and each measure, by setting.

    Args:
        found: by setting and treatment.
    """
    rows = [
        [setting, f"{len(findings)}", *(told(findings, x) for x in MEASURES.values())]
        for setting, findings in found.items()
        if len(findings) >= ENOUGH
    ]
    if not rows:
        return ""
    header = ["setting", "treatments", *MEASURES]
    return (
        "## What goes with accuracy\n\nOver all treatments of a setting, the rank "
        "correlation (Spearman's, from -1 to 1) of the mean accuracy with what the "
        "kernels and maps are; in brackets the probability of one that large by chance. "
        "Less similar maps would explain the gains if the first columns were near -1. "
        "Treatments were not drawn at random: this shows company, not causes.\n\n"
        f"```\n{aligned(header, rows)}\n```\n"
    )


def told(findings: Findings, measure: Callable[[Finding], float]) -> str:
    """The rank correlation over the treatments of which both are known."""
    pairs = np.array(
        [(finding.accuracy.mean, measure(finding)) for finding in findings.values()]
    )
    ours, theirs = pairs[np.isfinite(pairs).all(axis=1)].T
    result = stats.spearmanr(ours, theirs)
    return f"{result.statistic:+.2f} ({result.pvalue:.2f})"
