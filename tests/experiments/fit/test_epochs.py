"""The loop over epochs, on networks that are numbers: each step adds one."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.fit.engine import Chosen
from experiments.fit.epochs import Pace, State, fit
from experiments.fit.step import Network

STEPS, BATCH = 5, 10


class Feed:
    steps, batch_size, drawn = STEPS, BATCH, BATCH

    def parts(self, epoch, steps):
        yield steps, "images"

    def score(self, split):
        return split


class Engine:
    seeds, seconds_compiling = 2, 0.0

    def __init__(self, scores=(), diverging_at=()):
        self.taken, self.scored = [], []
        self._scores, self._diverging_at = list(scores), dict(diverging_at)

    def train(self, network, factors, epoch, steps, images, drawn):
        assert (images, drawn) == ("images", BATCH)
        self.taken.append((epoch, steps.start, steps.stop))
        count, size = network.variables, len(steps)
        return Network(count + size, None, network.loss + size, network.right + 6 * size)

    def score(self, variables, split):
        self.scored.append((split, variables.tolist()))
        return SimpleNamespace(accuracy=np.array(self._scores.pop(0), float))

    def close_epoch(self, network, chosen, epoch, score):
        at = [
            d or (epoch if self._diverging_at.get(s) == epoch else 0)
            for s, d in enumerate(chosen.diverged_at)
        ]
        better = (score >= chosen.score) & (np.array(at) == 0)
        new = (network.variables, score, np.full(2, epoch))
        best = (np.where(better, x, y) for x, y in zip(new, chosen[:3], strict=True))
        none = np.zeros(2)
        return Network(network.variables, None, none, none), Chosen(*best, np.array(at))


def start():
    none = np.zeros(2)
    chosen = Chosen(none, np.full(2, -np.inf), none, np.zeros(2, int))
    return State(Network(none, None, none, none), chosen, 1, 0, 0.0)


def run(engine, state=None, epochs=3, **options):
    options = {"epochs": epochs, "scored": "test"} | options
    return list(fit(engine, Feed(), state or start(), None, **options))


def test_an_epoch_is_all_its_steps_and_its_means():
    engine = Engine(scores=[(50, 60)] * 3)
    ends = run(engine)
    assert engine.taken == [(epoch, 0, STEPS) for epoch in (1, 2, 3)]
    assert [(at.epoch, at.step) for at, _ in ends] == [(2, 0), (3, 0), (4, 0)]
    for closed in (closed for _, closed in ends):
        np.testing.assert_array_equal(closed.loss, [1, 1])
        np.testing.assert_array_equal(closed.train_accuracy, [60, 60])
        np.testing.assert_array_equal(closed.accuracy, [50, 60])
    assert engine.scored == [("test", [STEPS * n] * 2) for n in (1, 2, 3)]


class Two(Pace):
    def __init__(self):
        self.steps = 2

    def took(self, steps, seconds):
        pass


def test_it_goes_on_from_any_state_that_it_stopped_at():
    whole = run(Engine(scores=[(1, 2)] * 3), pace=Two())
    places = [(at.epoch, at.step) for at, _ in whole]
    assert places[:4] == [(1, 2), (1, 4), (2, 0), (2, 2)]
    for done, (state, _) in enumerate(whole[:-1], 1):
        rest = run(Engine(scores=[(1, 2)] * 3), state, pace=Two())
        assert [(at.epoch, at.step) for at, _ in rest] == places[done:]
        for ours, theirs in zip(rest, whole[done:], strict=True):
            numbers = (at.network.variables for at, _ in (ours, theirs))
            np.testing.assert_array_equal(*numbers)
            assert (ours[1] is None) == (theirs[1] is None)


@pytest.mark.parametrize(("best", "expected"), [(True, [5, 15]), (False, [15, 15])])
def test_the_best_or_the_last_networks_are_chosen(best, expected):
    engine = Engine(scores=[(70, 1), (60, 2), (50, 3)])
    (last, _) = run(engine, best=best)[-1]
    np.testing.assert_array_equal(last.chosen.variables, expected)


def test_epochs_that_need_no_score_have_none():
    ends = run(Engine(scores=[(9, 9)]), scores=lambda epoch: epoch == 3)
    assert [bool(np.isnan(closed.accuracy).all()) for _, closed in ends] == [1, 1, 0]


def test_what_diverged_is_not_told_and_ends_the_training_when_it_is_all():
    engine = Engine(scores=[(1, 1)] * 3, diverging_at={0: 1, 1: 2}.items())
    ends = run(engine)
    assert len(ends) == 2
    (_, first), (_, second) = ends
    for name in ("loss", "train_accuracy", "accuracy"):
        np.testing.assert_array_equal(np.isnan(getattr(first, name)), [True, False])
        assert np.isnan(getattr(second, name)).all()
