"""The one loop over epochs, of everything that trains networks here."""

import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import chex
import jax
import numpy as np

from experiments.fit.devices import agreed
from experiments.fit.engine import Chosen, Engine
from experiments.fit.feeds import Feed
from experiments.fit.optimizer import Factors
from experiments.fit.step import Network, Variables
from experiments.interventions import Intervention

SECONDS_A_PROGRAM = 1.0


class State(NamedTuple):
    """Where a training stands: all that it goes on from."""

    network: Network  # the networks, one a seed; used up by the next steps
    chosen: Chosen  # the best so far
    epoch: int  # that is being trained, counted from 1
    step: int  # number of its steps that are done
    seconds: float  # that they took, without compilation


class Closed(NamedTuple):
    """An epoch that is done; arrays are `(seeds,)`, NaN for a seed that has diverged."""

    epoch: int  # counted from 1
    loss: np.ndarray  # mean cross-entropy of its batches
    train_accuracy: np.ndarray  # percentage of its images right, as they were trained on
    accuracy: np.ndarray  # percentage of the scored images right; NaN if none were scored
    variables: Variables  # of the networks at its end, those that diverged included
    seconds: float  # that its steps took, without compilation


def begin(
    engine: Engine,
    feed: Feed,
    intervention: Intervention,
    factors: Factors,
) -> State:
    """Random networks, initialised as the intervention says, before the first step."""

    def initialize(params: chex.ArrayTree, images: jax.Array) -> chex.ArrayTree:
        return intervention.before(params, engine.options, images)

    start = engine.start(initialize, feed.sample)
    return State(*engine.networks(start, factors), epoch=1, step=0, seconds=0.0)


def fit(
    engine: Engine,
    feed: Feed,
    state: State,
    factors: Factors,
    *,
    epochs: int,
    scored: Literal["validation", "test"],
    scores: Callable[[int], bool] = lambda epoch: True,
    best: bool = False,
    pace: "Pace | None" = None,
) -> Iterator[tuple[State, Closed | None]]:
    """Trains, and stops wherever a checkpoint could be written.

    Whoever iterates may leave at any of these points; `fit` goes on from their state. It
    ends early when no seed is left that has not diverged.

    Args:
        engine: the programs.
        feed: the images.
        state: where it goes on from; used up.
        factors: learning rate and strength.
        epochs: the last one.
        scored: images that are scored after an epoch.
        scores: whether they are scored after this one.
        best: choose the networks of the best score; otherwise the last that were finite.
        pace: how many steps are taken until the next stop; by default all of an epoch.

    Yields:
        The state after some steps, or after an epoch, which is then told as well.
    """
    network, chosen, epoch, step, seconds = state
    while epoch <= epochs and not diverged(chosen).all():
        while step < feed.steps:
            size = feed.steps if pace is None else agreed(pace.steps)
            steps = range(step, min(step + size, feed.steps))
            clock, compiling = time.perf_counter(), engine.seconds_compiling
            for part, images in feed.parts(epoch, steps):
                network = engine.train(network, factors, epoch, part, images, feed.drawn)
            np.asarray(network.loss)  # waits for the steps
            taken = time.perf_counter() - clock
            taken -= engine.seconds_compiling - compiling
            seconds += taken
            if pace is not None:
                pace.took(len(steps), taken)
            step = steps.stop
            if step < feed.steps:
                yield State(network, chosen, epoch, step, seconds), None
        accuracy = np.full(engine.seeds, np.nan)
        if scores(epoch):
            accuracy = engine.score(network.variables, feed.score(scored)).accuracy
        by = accuracy if best else np.full(engine.seeds, float(epoch))
        loss, right = np.asarray(network.loss), np.asarray(network.right)
        variables = network.variables
        network, chosen = engine.close_epoch(network, chosen, epoch, by)
        gone = diverged(chosen)
        closed = Closed(
            epoch,
            np.where(gone, np.nan, loss.astype(np.float64) / feed.steps),
            np.where(gone, np.nan, 100 * right / (feed.steps * feed.batch_size)),
            np.where(gone, np.nan, accuracy),
            variables,
            seconds,
        )
        epoch, step, seconds = epoch + 1, 0, 0.0
        yield State(network, chosen, epoch, step, seconds), closed


class Pace:
    """How many steps a program takes, so that it lasts about a second.

    Then progress is seen and an interruption heard, and starting a program costs nothing.

    >>> pace = Pace()
    >>> for steps, seconds in (1, 0.01), (4, 0.04), (16, 3.2):
    ...     pace.took(steps, seconds)
    ...     print(pace.steps)
    4
    16
    5
    """

    def __init__(self) -> None:
        self.steps = 1

    def took(self, steps: int, seconds: float) -> None:
        """Learns from the last program."""
        fitting = steps * SECONDS_A_PROGRAM / max(seconds, 1e-6)
        self.steps = max(1, min(int(fitting), 4 * self.steps))


def diverged(chosen: Chosen) -> np.ndarray:
    """Which seeds have."""
    return np.asarray(chosen.diverged_at) > 0
