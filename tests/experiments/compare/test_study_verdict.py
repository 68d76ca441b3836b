"""What the study's page says first."""

import numpy as np
import pytest

from experiments.interval import Interval
from experiments.study import verdict
from experiments.study.findings import Finding, findings
from tests.experiments.compare.study_outcomes import BASE, final, trial_of

NAN = np.nan


def made_up(**accuracies):
    named = {trial_of("none"): final(BASE)}
    for name, gains in accuracies.items():
        values = [x + gain for x, gain in zip(BASE, gains, strict=True)]
        named[trial_of(name.replace("_", "-"))] = final(values)
    return findings(named)


UP, MORE = (2.0, 2.5, 2.0, 2.5, 2.0), (4.0, 4.5, 4.5, 4.0, 4.0)
ABOVE = (3.0, 3.5, 3.0, 3.5, 3.0)
DOWN, NONE = (-2.0, -2.5, -2.0, -2.5, -2.0), (1.0, -1.0, 0.5, -0.5, 0.1)


@pytest.mark.parametrize(
    ("gains", "text"),
    [
        (
            {"scale_free_init": UP},
            "Better than the baseline and than its control: scale-free-init "
            "(+2.20 ± 0.34).",
        ),
        (
            {"paper_init": UP, "scale_free_init": MORE, "paper_reg": NONE},
            "Better than the baseline and than its control: scale-free-init "
            "(+4.20 ± 0.34). Better than the baseline, but not than its control: "
            "paper-init (+2.20 ± 0.34; "
            "its control is not measured yet).",
        ),
        (
            {"paper_init": UP, "shrunk": MORE, "so_reg": UP},
            "No form is clearly better than the baseline and than its control. Better "
            "than the baseline, but not than its control: paper-init (+2.20 ± 0.34; "
            "-2.00 ± 0.44 to its control). Without Convolutional Similarity: shrunk "
            "(+4.20 ± 0.34), so-reg (+2.20 ± 0.34).",
        ),
        (
            {"paper_init": MORE, "shrunk": UP, "cosine_init": ABOVE},
            "Better than the baseline and than its control: paper-init (+4.20 ± 0.34; "
            "+2.00 ± 0.44 to its control). paper-init less cosine-init, the best that "
            "does without Convolutional Similarity: +1.00 ± 0.44. Without Convolutional "
            "Similarity: cosine-init (+3.20 ± 0.34), shrunk (+2.20 ± 0.34).",
        ),
        (
            {"paper_init": NONE, "shrunk": UP},
            "No form is clearly better than the baseline and than its control. Without "
            "Convolutional Similarity: shrunk (+2.20 ± 0.34).",
        ),
        (
            {"paper_init": DOWN, "shrunk": NONE},
            "No form is clearly better than the baseline and than its control. Worse "
            "than the baseline: paper-init (-2.20 ± 0.34; -2.22 ± 0.70 to its control).",
        ),
    ],
)
def test_sentences_follow_from_the_findings(gains, text):
    assert verdict.accuracy(made_up(**gains)) == text


def test_the_best_with_the_similarity_stands_beside_the_best_without():
    found = {
        "one": made_up(scale_free_init=UP, paper_init=NONE, decay=MORE, shrunk=NONE),
        "two": made_up(scale_free_init=MORE, shrunk=DOWN),
        "three": made_up(shrunk=UP),
    }
    _, _, *rows = verdict.with_and_without(found).splitlines()
    assert [" ".join(row.split()) for row in rows] == [
        "one scale-free-init, 10 +2.20 ± 0.34 decay, 10 +4.20 ± 0.34 -2.00 ± 0.44",
        "two scale-free-init, 10 +4.20 ± 0.34 none +0.00 ± 0.00 +4.20 ± 0.34",
    ]


def test_the_advice_is_the_form_that_helps_in_the_most_settings():
    found = {
        "one": made_up(paper_init=MORE, scale_free_init=UP, shrunk=UP),
        "two": made_up(paper_init=NONE, scale_free_init=UP),
        "three": made_up(shrunk=UP),
    }
    assert verdict.advice(found) == (
        "Of all forms of Convolutional Similarity, **scale-free-init** (the scale-free "
        "cross-channel loss minimised before training) is better than the tuned baseline "
        "and than its control in the most settings: clearly in 2 of 2 (+2.20 ± 0.34 "
        "points in one, +2.20 ± 0.34 points in two)."
    )
    found["one"] = made_up(scale_free_init=UP)
    found["three"] = made_up(scale_free_init=DOWN)
    assert verdict.advice(found).endswith(
        " in 2 of 3 (+2.20 ± 0.34 points in one, +2.20 ± 0.34 points in two, "
        "-2.20 ± 0.34 points in three). It hurts in three."
    )


@pytest.mark.parametrize(
    "gains", [{"paper_init": UP, "shrunk": UP}, {"paper_init": UP}, {"shrunk": UP}]
)
def test_there_is_no_advice_where_no_form_helps(gains):
    assert verdict.advice({"one": made_up(**gains)}) == (
        "So far no form of Convolutional Similarity is clearly better than both the "
        "tuned baseline and its control, in any setting."
    )


def finding(start, end):
    nothing = Interval(NAN, NAN)
    return Finding(
        trial=trial_of("none"),
        accuracy=nothing,
        gain=nothing,
        chance=NAN,
        beyond=nothing,
        beyond_chance=NAN,
        sooner=nothing,
        sooner_beyond=nothing,
        finished=(5, 5),
        similarity={("before", "start"): start, ("before", "end"): end},
        change={},
        norm=1.0,
        of_seeds=(),
    )


def test_the_maps_of_the_form_that_starts_least_alike_are_followed():
    found = {
        "none": finding(0.5, 0.4),
        "shrunk": finding(0.1, 0.1),
        "paper-reg": finding(0.15, NAN),
        "scale-free-reg": finding(0.3, 0.2),
        "paper-init": finding(0.2, 0.35),
    }
    assert verdict.maps(found) == (
        " Maps before the activation are 0.500 alike at first, and 0.400 in the end; "
        "with paper-init, 0.200 and 0.350."
    )


@pytest.mark.parametrize("names", [["shrunk"], ["shrunk", "paper-reg"]])
def test_no_maps_are_spoken_of_without_a_form(names):
    found = {"none": finding(0.5, 0.4)} | {name: finding(NAN, NAN) for name in names}
    assert verdict.maps(found) == ""


def test_it_helps_where_the_difference_to_its_control_survives_the_adjustment():
    # 0.04 by itself: not after 6 other comparisons, of which none is anything.
    weak = (2.3, 2.6, 2.05, 2.6, 2.1)
    alone = made_up(paper_init=weak, shrunk=UP)
    assert 0.03 < alone["paper-init"].beyond_chance < 0.05
    assert verdict.helps(alone["paper-init"])
    others = {
        "scale_free_shrunk": (2.1, 2.4, 2.1, 2.4, 2.0),
        "matched_shrunk": (2.1, 2.4, 1.9, 2.5, 2.2),
        "cosine_shrunk": (1.9, 2.4, 2.1, 2.6, 2.1),
    }
    beside = made_up(paper_init=weak, shrunk=UP, **others)
    assert beside["paper-init"].beyond == alone["paper-init"].beyond
    assert not verdict.helps(beside["paper-init"])


def test_a_treatment_is_compared_with_its_control():
    found = made_up(paper_init=MORE, shrunk=UP, scale_free_init=UP)
    assert found["paper-init"].beyond.mean == pytest.approx(2.0)
    assert np.isnan(found["scale-free-init"].beyond.mean)
    alone = made_up(paper_init=MORE)
    assert np.isnan(alone["paper-init"].beyond.mean)
