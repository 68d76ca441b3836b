"""Which trial comes next, of made-up outcomes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from experiments.compare import plan
from experiments.compare.results import Trial
from experiments.compare.settings import SEEDS_FROM, SETTINGS, TUNED_FROM, Setting
from experiments.interventions import INTERVENTIONS
from tests.experiments.compare.outcomes import NAN, scored

RATES = (0.01, 0.02, 0.05)
TREATED = ("none", "paper-init")
SETTING = Setting("a line", SETTINGS["plain"].config, RATES, TREATED)
STRENGTHS = INTERVENTIONS["paper-init"].tried
DECAYING = replace(
    SETTING,
    decays=(0.1, 0.3),
    methods=("decay", "muon", "paper-init", "paper-reg"),
    tried={"paper-reg": (0.1, 1.0)},
    tuned=1,
    seeds=3,
    fewer={"muon": 1},
    alone=True,
)


def validation(method, strength, rate, decay=0.0):
    return Trial("validation", method, strength, rate, decay)


def run(setting, score, chosen=None, methods=None, done=None):
    """All trials, in the order in which they are asked for first."""
    outcomes, methods = dict(done or {}), methods or setting.methods
    while following := plan.next_trial(setting, methods, outcomes, chosen):
        trial, seeds = following
        scores = np.resize(score(trial), len(seeds))
        earlier = outcomes.get(trial, scored())
        assert len(earlier.scores) + len(seeds) <= len(setting.seeds_of(*trial[:2]))
        added = scored(*scores, first_seed=seeds.start)
        outcomes[trial] = earlier._replace(scores=earlier.scores + added.scores)
    return outcomes


def test_others_try_strengths_at_that_rate_then_the_rates_beside_it():
    def score(trial):
        if trial.method == "none":
            return {0.01: 50.0, 0.02: 70.0, 0.05: 60.0}[trial.learning_rate]
        return (trial.strength == 100) + 0.1 * (trial.learning_rate == 0.05)

    assert list(run(SETTING, score)) == [
        *(validation("none", 0.0, rate) for rate in RATES),
        *(validation("paper-init", strength, 0.02) for strength in STRENGTHS),
        validation("paper-init", 100.0, 0.01),
        validation("paper-init", 100.0, 0.05),
        Trial("test", "none", 0.0, 0.02),
        Trial("test", "paper-init", 100.0, 0.05),
    ]


def test_a_neighbouring_rate_that_is_worse_is_not_chosen():
    def score(trial):
        return 60.0 - abs(trial.learning_rate - 0.02) - trial.strength / 1000

    assert list(run(SETTING, score))[-1] == Trial("test", "paper-init", 10.0, 0.02)


def test_test_accuracies_choose_nothing():
    def score(trial):
        return {"validation": 50.0 - trial.learning_rate, "test": 99.0}[trial.split]

    reported = [trial for trial in run(SETTING, score) if trial.split == "test"]
    assert [trial.learning_rate for trial in reported] == [0.01, 0.005]


@pytest.mark.parametrize(
    ("best", "beside"), [(0.01, (0.005, 0.02)), (0.05, (0.02, 0.125))]
)
def test_beyond_the_ends_the_rates_go_on_by_the_last_factor(best, beside):
    done = run(SETTING, lambda t: float(t.method == "none" and t.learning_rate == best))
    rates = {t.learning_rate for t in done if t.method == "paper-init"}
    assert rates == {best, *beside}


def test_a_seed_that_diverged_counts_as_nothing():
    accuracies = {0.01: (40.0, 40.0), 0.02: (NAN, 79.0), 0.05: (NAN, NAN)}
    done = run(SETTING, lambda t: accuracies[t.learning_rate], methods=("none",))
    assert list(done)[-1] == Trial("test", "none", 0.0, 0.01)


def test_what_always_diverges_is_tested_too():
    done = run(SETTING, lambda trial: 50.0 if trial.method == "none" else NAN)
    assert list(done)[-1][:2] == ("test", "paper-init")


@pytest.mark.parametrize("setting", [SETTING, DECAYING])
def test_it_goes_on_where_it_stopped_and_ends(setting):
    done = run(setting, lambda trial: trial.learning_rate)
    trials = list(done)
    for count, trial in enumerate(trials):
        known = {each: done[each] for each in trials[:count]}
        following, seeds = plan.next_trial(setting, setting.methods, known)
        assert (following, seeds[0]) == (trial, setting.seeds_of(*trial[:2])[0])
    assert plan.next_trial(setting, setting.methods, done) is None
    first, _ = plan.next_trial(setting, ("paper-init",), {})
    assert first.method == setting.baseline


def test_a_setting_may_choose_a_decay_first_which_all_others_have_besides():
    def score(trial):
        if trial.method == "decay":
            return 50.0 + trial.strength - trial.learning_rate
        return 60.0 - trial.strength / 1000 - abs(trial.learning_rate - 0.04)

    done = list(run(DECAYING, score))
    baseline = [
        *(validation("decay", decay, 0.02) for decay in (0.1, 0.3)),
        *(validation("decay", 0.3, rate) for rate in (0.01, 0.05)),
    ]
    assert done[:4] == baseline
    rates = INTERVENTIONS["muon"].tried  # of its own: they mean something else to it
    assert done[4:-4] == [
        *(validation("muon", 0.0, rate, 0.3) for rate in rates),
        *(validation("paper-init", strength, 0.01, 0.3) for strength in STRENGTHS),
        validation("paper-init", 10.0, 0.005, 0.3),
        validation("paper-init", 10.0, 0.02, 0.3),
        # Of what the setting says, the rate is the baseline's.
        *(validation("paper-reg", strength, 0.01, 0.3) for strength in (0.1, 1.0)),
    ]
    assert done[-4:] == [
        Trial("test", "decay", 0.3, 0.01),
        Trial("test", "muon", 0.0, 0.04, 0.3),
        Trial("test", "paper-init", 10.0, 0.02, 0.3),
        Trial("test", "paper-reg", 0.1, 0.01, 0.3),
    ]


def test_what_has_an_optimizer_of_its_own_begins_with_the_rate_chosen_for_that():
    def score(trial):
        return 60.0 - abs(trial.learning_rate - 0.04) - abs(trial.strength - 0.3)

    name = "decorrelate+muon"
    done = list(run(replace(DECAYING, tried={}), score, methods=(name,)))
    assert [x for x in done if x.method == name] == [
        *(validation(name, x, 0.04, 0.3) for x in INTERVENTIONS[name].tried),
        *(validation(name, 0.3, x, 0.3) for x in (0.02, 0.08)),  # beside Muon's
        Trial("test", name, 0.3, 0.04, 0.3),
    ]
    assert Trial("test", "muon", 0.0, 0.04, 0.3) in done


def test_seeds_that_are_trained_alone_take_turns():
    outcomes, order = run(DECAYING, lambda trial: trial.learning_rate), []
    outcomes = {x: y for x, y in outcomes.items() if x.split == "validation"}
    while following := plan.next_trial(DECAYING, DECAYING.methods, outcomes):
        (name, (seed,)) = following[0].method, following[1]
        order.append((seed - SEEDS_FROM, name))
        earlier = outcomes.get(following[0], scored()).scores
        scores = [*earlier, *scored(1.0, first_seed=seed).scores]
        outcomes[following[0]] = scored()._replace(scores=scores)
    expected = [(seed, name) for seed in range(3) for name in DECAYING.methods]
    assert order == [x for x in expected if x[0] == 0 or x[1] != "muon"]


def test_strengths_are_taken_from_the_setting_that_it_is_like():
    like = replace(SETTING, like="plain")
    chosen = plan.strengths(run(SETTING, lambda trial: trial.strength))
    assert chosen == {"none": 0.0, "paper-init": max(STRENGTHS)}
    done = run(like, lambda trial: 50.0 - trial.learning_rate, chosen)
    assert list(done) == [
        *(validation("none", 0.0, rate) for rate in RATES),
        Trial("test", "none", 0.0, 0.01),
        Trial("test", "paper-init", max(STRENGTHS), 0.01),
    ]
    done = run(like, lambda trial: 50.0, {"none": 0.0})  # what is not chosen there waits
    assert {trial.method for trial in done} == {"none"}


@pytest.mark.parametrize(("held_out", "split"), [(0.0, "test"), (0.2, "validation")])
def test_fixed_strengths_need_one_trial_each(held_out, split):
    config = replace(SETTING.config, validation=held_out, learning_rate=0.3, steps=7)
    setting = Setting("demo", config, (), ("none", "decay", "paper-init"), tuned=0)
    assert list(run(setting, lambda trial: 1.0)) == [
        Trial(split, "none", 0.0, 0.3),
        Trial(split, "decay", 0.1, 0.3),
        Trial(split, "paper-init", 0.0, 0.3),
    ]
    assert setting.intervention("paper-init", 0.0).before.amount == 7
    other = replace(setting, config=replace(config, strength=0.25))
    assert list(run(other, lambda trial: 1.0))[1].strength == 0.25
    assert other.intervention("decay", 0.25).strength == 0.25


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", [1, -1])
def test_all_of_a_setting_are_tuned_with_equal_effort(name, place):
    setting = SETTINGS[name]
    generator, best = np.random.default_rng(0), setting.learning_rates[place]
    chosen = {each: INTERVENTIONS[each].tried[0] for each in setting.methods}

    def score(trial):
        if trial.method == setting.baseline:
            return float(trial.learning_rate == best)
        return generator.uniform()

    done = {}
    for method in setting.methods:
        done = run(setting, score, chosen, (method,), done)
    trials = Counter((trial.method, trial.split) for trial in done)
    for method in setting.methods:
        assert trials[method, "test"] == 1
        others = 0 if setting.like else 3 if setting.tried else 6
        expected = 6 if method == setting.baseline else others
        assert trials[method, "validation"] == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_what_they_say(name):
    setting = SETTINGS[name]
    assert setting.methods[0] == setting.baseline
    assert len(set(setting.methods)) == len(setting.methods)
    assert set(setting.fewer) <= set(setting.methods)
    tuned = range(TUNED_FROM, TUNED_FROM + setting.tuned)
    assert not set(tuned) & set(range(SEEDS_FROM, SEEDS_FROM + setting.seeds))
    assert setting.tuned >= 1 and min([setting.seeds, *setting.fewer.values()]) >= 5
    for values in (setting.learning_rates, setting.decays):
        assert list(values) == sorted(set(values))
    assert set(setting.tried) in (set(), set(setting.methods) - {setting.baseline})
    for method in setting.methods:
        tried = setting.tried.get(method, INTERVENTIONS[method].tried)
        assert list(tried) == sorted(set(tried))
    if setting.like:
        other = SETTINGS[setting.like]
        assert other.like is None and set(setting.methods) <= set(other.methods)
        assert list(SETTINGS).index(setting.like) < list(SETTINGS).index(name)
