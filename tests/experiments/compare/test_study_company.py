"""Rank correlations of made-up treatments, against ranks written out."""

import itertools

from experiments.study import company
from experiments.study.findings import findings
from tests.experiments.compare.study_outcomes import BASE, final, trial_of

NAMES = (
    "paper-init",
    "shrunk",
    "scale-free-init",
    "matched-init",
    "cosine-init",
    "paper-reg",
    "decay",
)


def made_up(gains, similarities):
    named = {trial_of("none"): final(BASE, similarity=0.5)}
    for name, gain, alike in zip(NAMES, gains, similarities, strict=False):
        accuracies = [x + gain * (1 + 0.1 * (x % 2)) for x in BASE]
        named[trial_of(name)] = final(accuracies, similarity=alike, norm=1 + gain)
    return findings(named)


def spearman(ours, theirs):
    """Without ties: 1 - 6 sum of squared differences of ranks / (n^3 - n)."""
    ranks = [[sorted(each).index(x) for x in each] for each in (ours, theirs)]
    squares = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    return 1 - 6 * squares / (len(ours) ** 3 - len(ours))


def test_ranks_of_accuracy_are_compared_with_those_of_the_maps():
    gains, alike = (1, 2, 3, 4, 5, 6, 7), (0.4, 0.6, 0.3, 0.7, 0.2, 0.1, 0.25)
    text = company.company({"one": made_up(gains, alike)})
    (row,) = (line.split() for line in text.splitlines() if line.startswith("one"))
    expected = spearman((0, *gains), (0.5, *alike))
    assert row[1] == "8"
    assert [row[place] for place in (2, 4, 6)] == [f"{expected:+.2f}"] * 3
    assert row[8:] == ["+1.00", "(0.00)"]  # norms grow with the gains


def test_few_treatments_say_nothing():
    gains = itertools.repeat(1.0)
    assert company.company({"one": made_up(gains, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))}) == ""
