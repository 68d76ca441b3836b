"""Which trial comes next, of made-up outcomes."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from experiments.study import plan
from experiments.study.results import Trial
from experiments.study.settings import SETTINGS, Setting
from experiments.study.treatments import TREATMENTS
from tests.experiments.compare.study_outcomes import scored

RATES = (0.01, 0.02, 0.05)
SETTING = Setting("a line", SETTINGS["plain"].config, RATES, ("none", "paper-init"))
LIKE = dataclasses.replace(SETTING, like="plain")
TREATED = ("none", "paper-init")
STRENGTHS = TREATMENTS["paper-init"].strengths


def validation(treatment, strength, rate):
    return Trial("validation", treatment, strength, rate)


def run(setting, score, chosen=None, treatments=TREATED, done=None):
    """All trials, in the order in which they are asked for."""
    outcomes, chosen = dict(done or {}), chosen or {}
    while trial := plan.next_trial(setting, treatments, outcomes, chosen):
        assert trial not in outcomes
        outcomes[trial] = scored(*np.atleast_1d(score(trial)))
    return outcomes


def test_the_baseline_tries_every_rate_and_its_best_is_scored_on_test_images():
    accuracies = dict(zip(RATES, (50.0, 70.0, 60.0), strict=True))
    done = run(SETTING, lambda trial: accuracies[trial.learning_rate], treatments=())
    assert list(done) == [
        *(validation("none", 0.0, rate) for rate in RATES),
        Trial("test", "none", 0.0, 0.02),
    ]


def test_a_treatment_tries_strengths_at_that_rate_then_the_rates_beside_it():
    def score(trial):
        if trial.treatment == "none":
            return {0.01: 50.0, 0.02: 70.0, 0.05: 60.0}[trial.learning_rate]
        return (trial.strength == 100) + 0.1 * (trial.learning_rate == 0.05)

    assert list(run(SETTING, score))[len(RATES) + 1 :] == [
        *(validation("paper-init", strength, 0.02) for strength in STRENGTHS),
        validation("paper-init", 100.0, 0.01),
        validation("paper-init", 100.0, 0.05),
        Trial("test", "paper-init", 100.0, 0.05),
    ]


def test_a_neighbouring_rate_that_is_worse_is_not_chosen():
    def score(trial):
        return 60.0 - abs(trial.learning_rate - 0.02) - trial.strength / 1000

    last = list(run(SETTING, score))[-1]
    assert last == Trial("test", "paper-init", 10.0, 0.02)


def test_test_accuracies_choose_nothing():
    def score(trial):
        return {"validation": 50.0 - trial.learning_rate, "test": 99.0}[trial.split]

    final = [trial for trial in run(SETTING, score) if trial.split == "test"]
    assert [trial.learning_rate for trial in final] == [0.01, 0.005]


@pytest.mark.parametrize(
    ("best", "beside"), [(0.01, (0.005, 0.02)), (0.05, (0.02, 0.125))]
)
def test_beyond_the_ends_the_rates_go_on_by_the_last_factor(best, beside):
    def score(trial):
        return float(trial.treatment == "none" and trial.learning_rate == best)

    done = run(SETTING, score)
    rates = {t.learning_rate for t in done if t.treatment == "paper-init"}
    assert rates == {best, *beside}


def test_a_seed_that_diverged_counts_as_nothing():
    def score(trial):
        return {0.01: (40.0, 40.0), 0.02: (np.nan, 79.0), 0.05: (np.nan, np.nan)}[
            trial.learning_rate
        ]

    done = run(SETTING, score, treatments=())
    assert list(done)[-1] == Trial("test", "none", 0.0, 0.01)
    assert plan.accuracies(scored(np.nan, 79.0)).tolist() == [0.0, 79.0]


def test_a_treatment_that_always_diverges_is_tested_too():
    done = run(SETTING, lambda trial: 50.0 if trial.treatment == "none" else np.nan)
    assert Counter((t.treatment, t.split) for t in done) == {
        ("none", "validation"): len(RATES),
        ("none", "test"): 1,
        ("paper-init", "validation"): len(STRENGTHS) + 2,
        ("paper-init", "test"): 1,
    }


def test_it_goes_on_where_it_stopped_and_ends():
    done = run(SETTING, lambda trial: trial.learning_rate)
    trials = list(done)
    for count, trial in enumerate(trials):
        known = {each: done[each] for each in trials[:count]}
        assert plan.next_trial(SETTING, TREATED, known, {}) == trial
    assert plan.next_trial(SETTING, TREATED, done, {}) is None


def test_the_baseline_comes_first_whatever_is_asked_for():
    assert plan.next_trial(SETTING, ("paper-init",), {}, {}) == validation(
        "none", 0.0, RATES[0]
    )


def test_strengths_are_taken_from_the_setting_that_it_is_like():
    chosen = {"none": 0.0, "paper-init": 30.0}
    done = run(LIKE, lambda trial: 50.0 - trial.learning_rate, chosen)
    assert list(done) == [
        *(validation("none", 0.0, rate) for rate in RATES),
        Trial("test", "none", 0.0, 0.01),
        Trial("test", "paper-init", 30.0, 0.01),
    ]


def test_what_is_not_chosen_there_waits():
    done = run(LIKE, lambda trial: 50.0, {"none": 0.0})
    assert {trial.treatment for trial in done} == {"none"}


def test_chosen_strengths_are_those_of_the_test():
    done = run(SETTING, lambda trial: trial.strength)
    assert plan.strengths(done) == {"none": 0.0, "paper-init": max(STRENGTHS)}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", [2, -1])
def test_every_treatment_of_every_setting_is_tuned_with_equal_effort(name, place):
    setting = SETTINGS[name]
    assert setting.treatments[0] == plan.BASELINE
    assert len(set(setting.treatments)) == len(setting.treatments)
    generator = np.random.default_rng(0)
    best = setting.learning_rates[place]  # in the middle, and at an end

    def score(trial):
        if trial.treatment == plan.BASELINE:
            return float(trial.learning_rate == best)
        return generator.uniform()

    chosen = {each: TREATMENTS[each].strengths[0] for each in setting.treatments}
    done = {}
    for treatment in setting.treatments:
        done = run(setting, score, chosen if setting.like else {}, (treatment,), done)
    trials = Counter((trial.treatment, trial.split) for trial in done)
    effort = len(setting.learning_rates)
    for treatment in setting.treatments:
        assert trials[treatment, "test"] == 1
        tuned_here = setting.like is None or treatment == plan.BASELINE
        assert trials[treatment, "validation"] == (effort if tuned_here else 0)


@pytest.mark.parametrize("name", [name for name in SETTINGS if SETTINGS[name].like])
def test_settings_take_strengths_of_what_another_one_tuned(name):
    setting = SETTINGS[name]
    other = SETTINGS[setting.like]
    assert other.like is None
    assert set(setting.treatments) <= set(other.treatments)
    names = list(SETTINGS)
    assert names.index(setting.like) < names.index(name)


@pytest.mark.parametrize("name", SETTINGS)
def test_rates_and_strengths_rise(name):
    rates = SETTINGS[name].learning_rates
    assert list(rates) == sorted(set(rates))
    for treatment in SETTINGS[name].treatments:
        strengths = TREATMENTS[treatment].strengths
        assert list(strengths) == sorted(set(strengths))
