"""Trains the networks of a trial, and measures them."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.fit.engine import Engine
from experiments.fit.feeds import Resident, fitting_model
from experiments.fit.optimizer import is_weight, learning_rates
from experiments.fit.step import Variables
from experiments.measurement import Layers
from experiments.run_folder import versions
from experiments.study.results import Epoch, Layer, Outcome, Score, Trial
from experiments.study.settings import SEEDS_FROM, TUNED_FROM, Setting
from experiments.study.treatments import TREATMENTS

MEASURED_IMAGES = 64


class Hyperparameters(NamedTuple):
    """What one program serves all values of."""

    learning_rate: Any
    strength: Any


class Trainer:
    """Trains the trials of a setting; those that train alike share their programs.

    Args:
        setting: see there.
        feed: its images.
    """

    def __init__(self, setting: Setting, feed: Resident):
        self._setting, self._feed = setting, feed
        self._engines: dict[Any, Engine] = {}

    def run(self, trial: Trial, on_epoch: Callable[[int], None]) -> Outcome:
        """Trains all seeds; `on_epoch` is told each epoch when it is done."""
        clock, feed, epochs = time.perf_counter(), self._feed, self._setting.config.epochs
        engine = self._engine(trial)
        initialize = TREATMENTS[trial.treatment].initialize
        start = engine.start(
            lambda params: initialize(params, trial.strength), feed.sample
        )
        factors = Hyperparameters(trial.learning_rate, trial.strength)
        network, chosen = engine.networks(start, factors)
        final, curve, layers = trial.split == "test", [], []
        if final:
            layers += self._measured(engine, start, 0)
        for epoch in range(1, epochs + 1):
            network = feed.train(engine, network, factors, epoch, range(feed.steps))
            losses = np.asarray(network.loss, np.float64) / feed.steps
            last = epoch == epochs
            if final or last:
                scores = engine.score(network.variables, feed.score("validation"))
            if final and epoch in (epochs // 2, epochs):
                layers += self._measured(engine, network.variables, epoch)
            network, chosen = engine.close_epoch(
                network, chosen, epoch, np.full(engine.seeds, epoch)
            )
            if final:
                gone = np.asarray(chosen.diverged_at) > 0
                pair = zip(
                    *(np.where(gone, np.nan, x) for x in (losses, scores)), strict=True
                )
                curve += [
                    Epoch(engine.first_seed + seed, epoch, float(loss), float(score))
                    for seed, (loss, score) in enumerate(pair)
                ]
            on_epoch(epoch)
        if final:
            scores = engine.score(network.variables, feed.score("test"))
        seconds = round(time.perf_counter() - clock, 1)
        about = (seconds, jax.devices()[0].device_kind, described_versions())
        return Outcome(
            [
                Score(
                    engine.first_seed + seed,
                    np.nan if diverged_at else float(score),
                    int(diverged_at),
                    *about,
                )
                for seed, (score, diverged_at) in enumerate(
                    zip(scores, np.asarray(chosen.diverged_at), strict=True)
                )
            ],
            curve,
            layers,
        )

    def _engine(self, trial: Trial) -> Engine:
        final, config = trial.split == "test", self._setting.config
        treatment = TREATMENTS[trial.treatment]
        key = (treatment.regularize, treatment.decoupled, final)
        if key not in self._engines:
            self._engines[key] = Engine(
                model=fitting_model(
                    config.model,
                    config.dataset,
                    self._feed,
                    width=config.width,
                    activation=config.activation,
                    dtype=jnp.dtype(config.dtype),
                ),
                optimizer=partial(self._optimizer, trial.treatment),
                seeds=self._setting.seeds if final else self._setting.tuned,
                first_seed=SEEDS_FROM if final else TUNED_FROM,
                mean=self._feed.mean,
                deviation=self._feed.deviation,
                label_smoothing=config.label_smoothing,
                augment=config.augment,
            )
        return self._engines[key]

    def _optimizer(
        self, name: str, factors: Hyperparameters
    ) -> optax.GradientTransformation:
        treatment, config = TREATMENTS[name], self._setting.config
        schedule = learning_rates(
            config.schedule, 1.0, config.milestones, config.epochs, self._feed.steps
        )
        terms = (
            []
            if treatment.regularize is None
            else [treatment.regularize(factors.strength)]
        )
        precondition = (
            optax.trace(config.momentum)
            if self._setting.optimizer == "sgd"
            else optax.scale_by_adam()
        )
        decay = optax.add_decayed_weights(config.weight_decay, is_weight)
        first, second = ([], terms) if treatment.decoupled else (terms, [])
        coupled = self._setting.optimizer == "sgd"
        return optax.chain(
            *first,
            *([decay] if coupled else []),
            precondition,
            *([] if coupled else [decay]),
            *second,
            optax.scale_by_schedule(
                lambda count: -factors.learning_rate * schedule(count)
            ),
        )

    def _measured(self, engine: Engine, variables: Variables, epoch: int) -> list[Layer]:
        images = self._feed.sample[:MEASURED_IMAGES]
        measured = engine.layers(variables, images, "all")
        return [
            row
            for seed in range(engine.seeds)
            for row in rows_of(measured, seed, engine.first_seed + seed, epoch)
        ]


def rows_of(measured: Layers, place: int, seed: int, epoch: int) -> list[Layer]:
    """A row for each layer of one seed, of four significant digits."""
    names = Layer._fields[3:]
    return [
        Layer(
            seed,
            epoch,
            name,
            *(float(f"{getattr(measured, field)[place, layer]:.4g}") for field in names),
        )
        for layer, name in enumerate(measured.names)
    ]


def described_versions() -> str:
    """Of all that results can depend on, in one line."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())
