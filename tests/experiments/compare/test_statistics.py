"""Findings against plain loops and closed forms, of made-up outcomes."""

import numpy as np
import pytest
from scipy import special, stats

from experiments.compare import statistics, table
from experiments.compare.statistics import findings
from experiments.interventions import INTERVENTIONS
from tests.experiments.compare.outcomes import (
    BASE,
    NAN,
    final,
    outcomes_of,
    scored,
    trial_of,
)

TREATED = {
    "paper-init": [63.0, 62.5, 63.5, 62.0, 64.5],
    "shrunk": [60.5, 61.0, 60.0, 60.0, 62.5],
    "scale-free-init": [60.0, NAN, 59.5, 61.5, 61.0],
    "paper-reg": [55.0, 56.0, 57.0, 52.0, 58.0],
    "cosine-reg": [60.1, 61.2, 58.9, 60.7, 62.2],
}
CURVES = [[10, 20, 30, 40], [10, 24, 30, 40]]  # 22 after two of four epochs


def two_sided(values):
    """The paired t-test written out: Student's t by the incomplete beta function."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    t, freedom = mean / (variance / len(values)) ** 0.5, len(values) - 1
    return special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t))


def apart(name):
    pairs = zip(TREATED[name], BASE, strict=True)
    return [ours - theirs for ours, theirs in pairs if np.isfinite(ours)]


@pytest.fixture(scope="module")
def found():
    return findings(outcomes_of(none=BASE, **TREATED))


def test_gains_are_of_equal_seeds_that_did_not_diverge(found):
    assert list(found) == ["none", *TREATED]
    for name in TREATED:
        np.testing.assert_allclose(found[name].gain.values, apart(name))
    assert not found["none"].gain.values.any()
    assert found["scale-free-init"].finished.tolist() == [True, False, True, True, True]
    assert found["scale-free-init"].diverged_at.tolist() == [0, 3, 0, 0, 0]
    np.testing.assert_allclose(found["paper-init"].beyond.values, [2.5, 1.5, 3.5, 2, 2])


def test_seeds_are_paired_by_their_number_though_some_have_fewer():
    outcomes = outcomes_of(none=BASE, paper_init=[63.0, 62.5])
    fewer = findings(outcomes)["paper-init"]
    np.testing.assert_allclose(fewer.gain.values, [3.0, 1.5])
    assert len(fewer.sooner.values) == 2
    moved = {
        trial_of("none"): scored(1, 2, 3),
        trial_of("decay"): scored(9, first_seed=7),
    }
    np.testing.assert_allclose(findings(moved)["decay"].gain.values, [6.0])


def test_chances_are_adjusted_as_benjamini_and_hochberg_say(found):
    chances = {name: two_sided(apart(name)) for name in TREATED}
    ranked = sorted(chances, key=chances.__getitem__)
    for rank, name in enumerate(ranked):
        # The least of all that are as large: p m / k.
        expected = min(
            chances[other] * len(ranked) / (place + 1)
            for place, other in enumerate(ranked)
            if place >= rank
        )
        assert found[name].gain.chance == pytest.approx(min(expected, 1))
    assert np.isnan(found["none"].gain.chance) and not found["none"].gain.clear
    assert {name for name in found if found[name].gain.clear} == {
        "paper-init",
        "paper-reg",
    }


@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, 1.1], [0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 98.3 - 98]]
)
def test_no_chance_is_known_of_few_or_of_equals(values):
    assert np.isnan(statistics.chance_of(np.array(values)))


@pytest.mark.parametrize(
    ("curve", "target", "epochs"),
    [
        ([10, 20, 30], 25, 2.5),
        ([10, 20, 30], 20, 2.0),
        ([10, 20, 30], 5, 0.5),
        ([10, 30, 20, 40], 25, 1.75),  # the first time
        ([10, 20, 30], 31, NAN),
        ([10, NAN, NAN], 15, NAN),
        ([10, 20], NAN, NAN),
    ],
)
def test_epochs_to_a_target_are_counted_along_straight_lines(curve, target, epochs):
    (result,) = statistics.epochs_to(np.array([curve], float), target)
    assert result == pytest.approx(epochs, nan_ok=True)


@pytest.mark.parametrize(
    ("curves", "sooner"),
    [
        # 1 and 2 epochs, instead of 2.2 and 1 + 12 / 14.
        ([[22, 30, 30, 30], [11, 22, 30, 30]], [1.2, 12 / 14 - 1]),
        # The first never gets there.
        ([[10, 12, 14, 16], [11, 33, 34, 35]], [12 / 14 - 0.5]),
    ],
)
def test_epochs_sooner_are_to_the_baseline_at_half_time(curves, sooner):
    outcomes = {
        trial_of("none"): final([40, 40], CURVES),
        trial_of("decay"): final([40, 40], curves),
    }
    found = findings(outcomes)
    assert found["none"].target == found["decay"].target == 22
    np.testing.assert_allclose(found["decay"].sooner.values, sooner)
    assert not found["none"].sooner.values.any()


def test_chances_beyond_controls_are_adjusted_among_themselves():
    control, more, most = [0.1, 0, 0.2, 0, 0.1], [1, 2, 1, 2, 1.5], [3, 2, 3, 2.5, 2.5]
    gains = {
        "shrunk": control,
        "paper-init": more,
        "cosine-shrunk": most,
        "scale-free-init": most,
    }
    named = {name: np.add(BASE, gain).tolist() for name, gain in gains.items()}
    found = findings(outcomes_of(none=BASE, **named))
    less, least = (
        two_sided([x - y for x, y in zip(gain, control, strict=True)])
        for gain in (more, most)
    )
    assert least < less < 0.05
    assert found["cosine-shrunk"].beyond.chance == pytest.approx(min(2 * least, less))
    assert found["paper-init"].beyond.chance == pytest.approx(less)
    assert found["paper-init"].beyond.clear
    for name in ("scale-free-init", "shrunk", "none"):
        assert np.isnan(found[name].beyond.chance)
        assert not found[name].beyond.clear


def test_curves_are_by_seed_whatever_the_order_of_rows():
    outcome = final([1, 2], [[10, 11], [20, 21]])
    outcome.epochs.reverse()
    assert statistics.curve_of(outcome, 3)[:, :2].tolist() == [[10, 11], [20, 21]]
    assert np.isnan(statistics.curve_of(outcome, 3)[:, 2]).all()


def test_measures_are_of_all_layers_before_training_and_after():
    found = findings({trial_of("none"): final([1, 2], norm=0.5)})["none"]
    divisors = {
        "feature_map_similarity": 1,
        "feature_map_similarity_activated": 2,
        "feature_map_similarity_centered": 4,
        "feature_map_similarity_activated_centered": 8,
        "effective_maps": 3,
        "effective_maps_activated": 5,
    }
    others = {"paper_loss": 40, "kernel_similarity": 0.25, "norm": 2.5}  # of 1.5 and 2
    for measured, maps in ((found.start, 0.55), (found.end, 0.3)):
        expected = {name: maps / divisor for name, divisor in divisors.items()} | others
        assert measured.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(measured[name], [value] * 2)


def test_what_diverged_has_no_gain_and_spoils_no_other():
    made_up = outcomes_of(none=BASE, paper_init=TREATED["paper-init"])
    gone = {trial_of("paper-reg"): final([NAN] * 5, [[30, NAN, NAN, NAN]] * 5)}
    alone, found = findings(made_up), findings(made_up | gone)
    diverged = found["paper-reg"]
    assert not diverged.finished.any() and not diverged.gain.clear
    assert not len(diverged.gain.values) and not len(diverged.sooner.values)
    ours, expected = (x["paper-init"].gain for x in (found, alone))
    assert ours.chance == expected.chance
    np.testing.assert_array_equal(ours.values, expected.values)


def test_without_the_baseline_there_are_accuracies_alone():
    found = findings(outcomes_of(paper_init=[50.0, 51.0]))["paper-init"]
    assert found.accuracy.tolist() == [50, 51]
    assert (
        not len(found.gain.values) and np.isnan([found.target, found.gain.chance]).all()
    )
    assert not len(found.sooner.values)
    other = findings(outcomes_of(decay=[1.0, 2.0], muon=[3.0, 5.0]), baseline="decay")
    assert other["muon"].gain.values.tolist() == [2, 3]
    assert findings({}) == {}
    validation = {trial_of("none", split="validation"): scored(1.0)}
    assert findings(validation) == {}
    assert list(findings(validation, "validation")) == ["none"]


def test_other_scores_are_paired_too():
    outcomes = outcomes_of(none=[1.0, 2.0, 3.0], paper_init=[1.0, 2.0, 3.0])
    for trial, outcome in outcomes.items():
        shift = trial.method == "paper-init"
        outcome.scores[:] = [
            row._replace(calibration=row.seed, noise=2.0 * row.seed * shift)
            for row in outcome.scores
        ]
    one = findings(outcomes)["paper-init"]
    assert one.others["calibration"].tolist() == [0, 1, 2]
    assert one.apart["noise"].values.tolist() == [0, 2, 4]
    assert np.isnan(one.others["blur"]).all() and not one.apart["blur"].values.size


def test_correlations_are_of_ranks_over_methods():
    generator = np.random.default_rng(0)
    outcomes, points = {}, []
    for name in list(INTERVENTIONS)[:9]:
        accuracy = generator.normal(60, 2, 3)
        similarity, norm = generator.uniform(0.2, 0.8), generator.uniform(1, 2)
        outcomes[trial_of(name)] = final(accuracy, similarity=similarity, norm=norm)
        points.append((accuracy.mean(), similarity, norm))
    accuracies, similarities, norms = np.transpose(points)
    found = statistics.correlations(findings(outcomes))
    for key, values in (
        (("feature_map_similarity", "end"), similarities),
        (("norm", "start"), norms),
    ):
        one = found[key]
        expected = stats.spearmanr(accuracies, values).statistic
        reach = 1.959964 * np.sqrt((1 + expected**2 / 2) / (9 - 3))
        low, high = np.tanh(np.arctanh(expected) + np.array([-reach, reach]))
        np.testing.assert_allclose(one[:3], [expected, low, high])
        assert one.methods == 9
    assert ("kernel_similarity", "end") not in found  # the same of all
    fewer = dict(list(outcomes.items())[:5])
    assert not statistics.correlations(findings(fewer))


@pytest.mark.parametrize(
    ("strength", "end"), [(10.0, True), (30.0, False), (300.0, True)]
)
def test_a_strength_at_an_end_is_told(strength, end):
    outcomes = {trial_of("paper-init", strength): final([1.0])}
    assert findings(outcomes)["paper-init"].at_end == end  # of what is always tried
    for tried in (10.0, 30.0):
        outcomes[trial_of("paper-init", tried, split="validation")] = scored(1.0)
    assert findings(outcomes)["paper-init"].at_end == (strength in (10.0, 30.0))


@pytest.mark.parametrize(
    ("name", "rate", "end"),
    [
        ("none", 0.04, True),
        ("none", 0.02, False),
        ("decay", 0.02, False),  # the baseline was tried beyond it
        ("decay", 0.08, True),
        ("muon", 0.02, True),  # of its own rates
        ("muon", 0.04, False),
        ("decorrelate+muon", 0.04, False),  # of Muon's, with which it began
        ("decorrelate+muon", 0.02, True),
    ],
)
def test_a_learning_rate_at_an_end_is_told(name, rate, end):
    tried = {
        "none": (0.01, 0.02, 0.04),
        "decay": (0.02, 0.08),
        "muon": (0.02, 0.04, 0.08),
    }
    outcomes = {
        trial_of(method, rate=x, split="validation"): scored(1.0)
        for method, rates in tried.items()
        for x in rates
    }
    trial = trial_of(name, rate=rate)
    assert not findings({trial: final([1.0])})[name].rate_at_end  # nothing was tried
    found = findings({trial: final([1.0]), **outcomes})
    assert found[name].rate_at_end == end
    assert (f"{rate:g}, end" in table.table(found, tuned=True)) == end
