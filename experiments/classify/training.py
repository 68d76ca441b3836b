"""A method's networks, of all seeds, from their initialization to the last epoch."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import chex
import flax.linen as nn
import numpy as np

import convsim_jax as cs
from experiments.fit.engine import Engine
from experiments.fit.feeds import Feed
from experiments.fit.optimizer import learning_rates, optimizer
from experiments.fit.step import Variables
from experiments.methods import Method, Objective, Pairs, Regularizer


class Training(NamedTuple):
    """What became of a method's networks, the seeds along the first axis.

    Attributes:
        start: variables after the initialization, before the first step.
        end: variables after the last epoch in which all was finite.
        diverged_at: epoch, counted from 1, in which a seed diverged; 0 if it did not.
        loss: mean cross-entropy of each epoch's batches, shape `(seeds, epochs)`; NaN
            from the epoch on in which a seed diverged.
        accuracy: percentage of the scored images that are right after each epoch,
            likewise.
        seconds: time taken, the compilation of programs left out.
    """

    start: Variables
    end: Variables
    diverged_at: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Trainer:
    """Trains a model from several seeds, which share one program and the data.

    Methods that train alike share a program too: a regularizer's strength is an argument
    of it. A seed fixes the random weights and the order of the images, whatever the
    method, so that methods can be compared seed by seed.

    Attributes:
        model: the network.
        feed: the images.
        scored: the split that is scored after each epoch.
        seeds: number of seeds: 0, 1, and so on.
        epochs: number of epochs, over which the learning rate falls to 0 as a cosine.
        learning_rate: of SGD, at the start.
        momentum: of SGD.
        steps: of an initialization.
        pairs: pairs of kernels that Convolutional Similarity is summed over.
        preserve_norm: whether an initialization keeps each output channel's norm.
    """

    model: nn.Module
    feed: Feed
    scored: Literal["validation", "test"]
    seeds: int
    epochs: int
    learning_rate: float
    momentum: float
    steps: int
    pairs: Pairs
    preserve_norm: bool
    _engines: dict[Any, Engine] = field(default_factory=dict, init=False, repr=False)

    def run(
        self, method: Method, strength: float, on_epoch: Callable[[np.ndarray], None]
    ) -> Training:
        """Trains all seeds; `on_epoch` is given each epoch's accuracies."""
        engine = self.engine(method.regularizer)
        clock, compiling = time.perf_counter(), engine.seconds_compiling
        start = engine.start(
            lambda params: method.initialize(params, self._minimize), self.feed.sample
        )
        network, chosen = engine.networks(start, strength)
        losses, accuracies = [], []
        for epoch in range(1, self.epochs + 1):
            steps = range(self.feed.steps)
            network = self.feed.train(engine, network, strength, epoch, steps)
            loss = np.asarray(network.loss, np.float64) / self.feed.steps
            accuracy = engine.score(network.variables, self.feed.score(self.scored))
            # The later, the better: what is chosen is the last that was finite.
            network, chosen = engine.close_epoch(
                network, chosen, epoch, np.full(self.seeds, epoch)
            )
            gone = np.asarray(chosen.diverged_at) > 0
            losses.append(np.where(gone, np.nan, loss))
            accuracies.append(np.where(gone, np.nan, accuracy))
            on_epoch(accuracies[-1])
        compiling = engine.seconds_compiling - compiling
        return Training(
            start=start,
            end=chosen.variables,
            diverged_at=np.asarray(chosen.diverged_at),
            loss=np.stack(losses, axis=1),
            accuracy=np.stack(accuracies, axis=1),
            seconds=time.perf_counter() - clock - compiling,
        )

    def engine(self, regularizer: Regularizer | None) -> Engine:
        """The programs of all methods with that regularizer."""
        if regularizer not in self._engines:
            rates = learning_rates(
                "cosine", self.learning_rate, (), self.epochs, self.feed.steps
            )
            self._engines[regularizer] = Engine(
                model=self.model,
                optimizer=lambda strength: optimizer(
                    rates, self.momentum, 0.0, regularizer, strength, self.pairs
                ),
                seeds=self.seeds,
                mean=self.feed.mean,
                deviation=self.feed.deviation,
            )
        return self._engines[regularizer]

    def _minimize(
        self,
        params: chex.ArrayTree,
        objective: Objective,
        preserve_norm: bool | None = None,
    ) -> chex.ArrayTree:
        return cs.minimize_similarity(
            params,
            self.steps,
            preserve_norm=self.preserve_norm if preserve_norm is None else preserve_norm,
            pairs=self.pairs,
            **objective._asdict(),
        )[0]
