"""Findings against plain loops and closed forms, of made-up outcomes."""

import numpy as np
import pytest
from scipy import special

from experiments.study import findings
from experiments.study.findings import SIMILARITIES
from tests.experiments.compare.study_outcomes import final, scored, trial_of

NAN = np.nan
BASE = [60.0, 61.0, 59.0, 60.5, 62.0]
TREATED = {
    "paper-init": [63.0, 62.5, 63.5, 62.0, 64.5],
    "shrunk": [60.5, 61.0, 60.0, 60.0, 62.5],
    "scale-free-init": [60.0, NAN, 59.5, 61.5, 61.0],
    "paper-reg": [55.0, 56.0, 57.0, 52.0, 58.0],
    "cosine-reg": [60.1, 61.2, 58.9, 60.7, 62.2],
}


def outcomes(accuracies=TREATED, base=BASE):
    named = {"none": base} | accuracies
    return {trial_of(name): final(values) for name, values in named.items()}


def two_sided(values):
    """The paired t-test written out: Student's t by the incomplete beta function."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    t, freedom = mean / (variance / len(values)) ** 0.5, len(values) - 1
    return special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t))


def differences(name):
    pairs = zip(TREATED[name], BASE, strict=True)
    return [ours - theirs for ours, theirs in pairs if np.isfinite(ours)]


@pytest.fixture(scope="module")
def found():
    return findings.findings(outcomes())


def test_gains_are_of_equal_seeds(found):
    assert list(found) == ["none", *TREATED]
    for name in TREATED:
        values = differences(name)
        assert found[name].gain.mean == pytest.approx(sum(values) / len(values))
        # Student's 97.5 % quantiles, from a printed table.
        quantile = {5: 2.776445, 4: 3.182446}[len(values)]
        error = np.std(values, ddof=1) / len(values) ** 0.5
        assert found[name].gain.reach == pytest.approx(quantile * error, rel=1e-6)
    assert found["none"].gain == (0, 0)


def test_accuracies_are_of_the_seeds_that_did_not_diverge(found):
    assert found["none"].accuracy.mean == pytest.approx(60.5)
    assert found["scale-free-init"].accuracy.mean == pytest.approx(60.5)
    assert found["scale-free-init"].gain.mean == pytest.approx(0.125)


def test_chances_are_adjusted_as_benjamini_and_hochberg_say(found):
    chances = {name: two_sided(differences(name)) for name in TREATED}
    ranked = sorted(chances, key=chances.__getitem__)
    for rank, name in enumerate(ranked):
        # The least of all that are as large: p m / k.
        expected = min(
            chances[other] * len(ranked) / (place + 1)
            for place, other in enumerate(ranked)
            if place >= rank
        )
        assert found[name].chance == pytest.approx(min(expected, 1))
    assert np.isnan(found["none"].chance)
    assert not found["none"].clear


def test_some_are_clear_and_one_is_only_before_the_adjustment(found):
    assert {name for name in found if found[name].clear} == {"paper-init", "paper-reg"}
    assert findings.findings(outcomes({"cosine-reg": [60.2, 61.4, 59.1, 60.9, 62.2]}))[
        "cosine-reg"
    ].clear
    # 20 treatments that change nothing beside it: 0.012 is no longer rare.
    weak = {"cosine-reg": TREATED["cosine-reg"]}
    alone = findings.findings(outcomes(weak))["cosine-reg"].chance
    assert found["cosine-reg"].chance > alone


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0, 0.0]])
def test_no_chance_is_known_of_nothing(values):
    assert np.isnan(findings.chance_of(np.array(values)))


def test_the_chance_of_three_differences_is_the_closed_form():
    # Student's t of two degrees of freedom has an elementary distribution.
    values = np.array([0.5, 1.5, 0.1])
    t = values.mean() / (values.std(ddof=1) / 3**0.5)
    expected = 1 - t / np.sqrt(2 + t * t)
    assert findings.chance_of(values) == pytest.approx(expected)


def test_pairs_are_those_of_which_both_are_known():
    ours, theirs = np.array([1.0, NAN, 3.0, 4.0]), np.array([0.5, 1.0, NAN, 1.0])
    assert findings.paired(ours, theirs).tolist() == [0.5, 3.0]


@pytest.mark.parametrize(
    ("curve", "target", "epochs"),
    [
        ([10, 20, 30], 25, 2.5),
        ([10, 20, 30], 20, 2.0),
        ([10, 20, 30], 5, 0.5),
        ([10, 30, 20, 40], 25, 1.75),  # the first time
        ([20, 10, 40], 25, 2.5),
        ([10, 20, 30], 31, NAN),
        ([10, NAN, NAN], 15, NAN),
        ([NAN, NAN], 15, NAN),
        ([10, 20], NAN, NAN),
    ],
)
def test_epochs_to_a_target_are_counted_along_straight_lines(curve, target, epochs):
    result = findings.epochs_to(np.array(curve, float), target)
    assert result == pytest.approx(epochs, nan_ok=True)


def test_epochs_sooner_are_to_the_baseline_at_half_time():
    base = final([40, 40], [[10, 20, 30, 40], [10, 24, 30, 40]])  # 22 after epoch 2
    quick = final([40, 40], [[22, 30, 30, 30], [11, 22, 30, 30]])
    found = findings.findings({trial_of("none"): base, trial_of("paper-init"): quick})
    # 1 and 2 epochs, instead of 2.2 and 1 + 12 / 14.
    assert found["paper-init"].sooner.mean == pytest.approx((1.2 + 12 / 14 - 1) / 2)
    assert found["none"].sooner.mean == 0


def test_epochs_sooner_than_the_control_are_to_the_same_target():
    base = final([40, 40], [[10, 20, 30, 40], [10, 24, 30, 40]])
    quick = final([40, 40], [[22, 30, 30, 30], [11, 22, 30, 30]])
    control = final([40, 40], [[11, 22, 30, 30], [10, 14, 22, 30]])
    found = findings.findings(
        {
            trial_of("none"): base,
            trial_of("paper-init"): quick,
            trial_of("shrunk"): control,
        }
    )
    # 1 and 2 epochs, instead of 2 and 3.
    assert found["paper-init"].sooner_beyond == (1.0, 0.0)
    assert np.isnan(found["shrunk"].sooner_beyond).all()


def test_chances_beyond_controls_are_adjusted_among_themselves():
    control, more, most = [0.1, 0, 0.2, 0, 0.1], [1, 2, 1, 2, 1.5], [3, 2, 3, 2.5, 2.5]
    named = {
        name: [x + y for x, y in zip(BASE, gain, strict=True)]
        for name, gain in {
            "shrunk": control,
            "paper-init": more,
            "cosine-shrunk": most,
            "scale-free-init": most,
        }.items()
    }
    found = findings.findings(outcomes(named))
    less, least = (
        two_sided([x - y for x, y in zip(gain, control, strict=True)])
        for gain in (more, most)
    )
    assert least < less < 0.05
    assert found["cosine-shrunk"].beyond_chance == pytest.approx(min(2 * least, less))
    assert found["paper-init"].beyond_chance == pytest.approx(less)
    assert found["paper-init"].clear_of_control
    for name in ("scale-free-init", "shrunk", "none"):
        assert np.isnan(found[name].beyond_chance)
        assert not found[name].clear_of_control


def test_treatments_are_compared_with_each_other_by_seed(found):
    apart = findings.difference(found["paper-init"], found["scale-free-init"])
    pairs = zip(TREATED["paper-init"], TREATED["scale-free-init"], strict=True)
    values = [a - b for a, b in pairs if np.isfinite(b)]
    assert apart.mean == pytest.approx(sum(values) / 4)
    error = np.std(values, ddof=1) / 4**0.5
    assert apart.reach == pytest.approx(3.182446 * error, rel=1e-6)


def test_a_seed_that_never_gets_there_has_no_difference():
    base = final([40, 40], [[10, 20, 30, 40], [10, 24, 30, 40]])
    slow = final([40, 40], [[10, 12, 14, 16], [11, 33, 34, 35]])
    found = findings.findings({trial_of("none"): base, trial_of("paper-init"): slow})
    assert found["paper-init"].sooner.mean == pytest.approx(12 / 14 - 0.5)
    assert np.isnan(found["paper-init"].sooner.reach)


def test_curves_are_by_seed_whatever_the_order_of_rows():
    outcome = final([1, 2], [[10, 11], [20, 21]])
    outcome.epochs.reverse()
    assert findings.curves(outcome).tolist() == [[10, 11], [20, 21]]


def test_similarity_is_the_mean_of_layers_and_seeds_at_each_moment():
    outcome = final([1, 2], similarity=0.5)
    means = findings.similarities(outcome)
    assert len(means) == 12
    for moment, epoch in (("start", 0), ("middle", 2), ("end", 4)):
        for kind in SIMILARITIES:
            total, count = 0.0, 0
            for row in outcome.layers:
                if row.epoch == epoch:
                    total, count = total + getattr(row, kind), count + 1
            assert means[kind, moment] == pytest.approx(total / count)
    assert means["before", "start"] == pytest.approx(0.55)
    assert means["after", "end"] == pytest.approx(0.15)


def test_the_norm_is_of_all_kernels_of_a_network():
    assert findings.norm_at_start(final([1, 2, 3], norm=0.5)) == pytest.approx(2.5)


def test_a_treatment_that_diverged_has_no_gain_and_spoils_no_other():
    gone = {"paper-reg": [NAN] * 5}
    curves = [[30, NAN, NAN, NAN]] * 5
    made_up = outcomes({"paper-init": TREATED["paper-init"]})
    alone = findings.findings(made_up)
    found = findings.findings(
        made_up | {trial_of("paper-reg"): final(*gone.values(), curves)}
    )
    diverged = found["paper-reg"]
    for value in (diverged.accuracy, diverged.gain, diverged.sooner):
        assert np.isnan(value).all()
    assert np.isnan(diverged.chance) and not diverged.clear
    assert diverged.similarity["before", "start"] == pytest.approx(0.55)
    assert np.isnan(diverged.similarity["before", "end"])
    assert found["paper-init"] == alone["paper-init"]


def test_a_baseline_that_diverged_leaves_no_gain():
    gone = final([NAN, NAN], [[30, NAN, NAN, NAN]] * 2)
    treated = final([50, 51])
    found = findings.findings({trial_of("none"): gone, trial_of("paper-init"): treated})
    assert found["paper-init"].accuracy.mean == 50.5
    assert np.isnan(found["paper-init"].gain).all()
    assert np.isnan(found["paper-init"].sooner).all()


def test_nothing_is_found_without_the_baseline_or_a_test():
    assert findings.findings({}) == {}
    assert findings.findings({trial_of("paper-init"): final([1.0])}) == {}
    validation = trial_of("none")._replace(split="validation")
    assert findings.findings({validation: scored(1.0)}) == {}
