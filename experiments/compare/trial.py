"""Trains the networks of a trial, and measures them."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

import convsim_jax as cs
from experiments.compare.results import Epoch, Layer, Outcome, Score, Trial
from experiments.compare.settings import TUNED_FROM, Setting
from experiments.fit.build import build_engine, similarity_options
from experiments.fit.engine import Engine
from experiments.fit.epochs import begin, diverged, fit
from experiments.fit.feeds import Feed
from experiments.fit.optimizer import Factors
from experiments.fit.step import Variables
from experiments.interventions import Intervention
from experiments.measurement import Layers
from experiments.run_folder import versions


class Trainer:
    """Trains the trials of a setting; those that train alike share their programs.

    Args:
        setting: see there.
        feed: its images.
    """

    def __init__(self, setting: Setting, feed: Feed):
        self._setting, self._feed = setting, feed
        self._engines: dict[Any, Engine] = {}

    def run(self, trial: Trial, on_epoch: Callable[[int, np.ndarray], None]) -> Outcome:
        """Trains all seeds, and measures those of a trial that is reported.

        A seed fixes the random weights and the order of the images, whatever the
        intervention, so that interventions can be compared seed by seed.

        Args:
            trial: see there.
            on_epoch: is told each epoch when it is done, and its accuracies.
        """
        setting, feed = self._setting, self._feed
        config, epochs = setting.config, setting.config.epochs
        reported = setting.fixed or trial.split == "test"
        intervention = setting.intervention(trial.treatment, trial.strength)
        engine = self._engine(intervention, reported)
        factors = Factors(trial.learning_rate, intervention.strength)
        options = similarity_options(config)
        state = begin(engine, feed, intervention, options, factors)
        curve: list[Epoch] = []
        layers: list[Layer] = []
        kernels: dict[str, np.ndarray] = {}

        def measure(epoch: int, variables: Variables) -> None:
            if reported:
                images = feed.sample[: setting.measured]
                measured = engine.layers(variables, images, config.pairs)
                layers.extend(rows_of(measured, engine.first_seed, epoch))

        def keep(when: str, variables: Variables) -> None:
            if setting.fixed:
                first = jax.tree.map(lambda leaf: leaf[0], variables["params"])
                for path, kernel in cs.conv_kernels(first).items():
                    kernels[f"{when}/{path}"] = np.asarray(kernel)

        measure(0, state.network.variables)
        keep("start", state.network.variables)
        followed: Literal["validation", "test"] = (
            "validation" if feed.sizes["validation"] else "test"
        )
        accuracy = np.full(engine.seeds, np.nan)
        seconds, chosen = 0.0, state.chosen
        for last, closed in fit(
            engine,
            feed,
            state,
            factors,
            epochs=epochs,
            batch_size=config.batch_size,
            scored=followed,
            scores=lambda epoch: reported or epoch == epochs,
        ):
            if closed is None:
                continue
            chosen = last.chosen
            accuracy = closed.accuracy
            seconds += closed.seconds
            if reported:
                pairs = zip(closed.loss, accuracy, strict=True)
                curve += [
                    Epoch(seed, closed.epoch, float(loss), float(score))
                    for seed, (loss, score) in enumerate(pairs, engine.first_seed)
                ]
            if closed.epoch == epochs // 2:
                measure(closed.epoch, closed.variables)
            on_epoch(closed.epoch, accuracy)
        measure(epochs, chosen.variables)
        keep("end", chosen.variables)
        if trial.split != followed:
            scores = engine.score(chosen.variables, feed.score(trial.split))
            accuracy = np.where(diverged(chosen), np.nan, scores)
        about = (round(seconds, 1), jax.devices()[0].device_kind, described_versions())
        gone = np.asarray(chosen.diverged_at)
        rows = [
            Score(seed, float(score), int(at), *about)
            for seed, (score, at) in enumerate(
                zip(accuracy, gone, strict=True), engine.first_seed
            )
        ]
        return Outcome(rows, curve, layers, kernels)

    def _engine(self, intervention: Intervention, reported: bool) -> Engine:
        during = intervention.during
        key = (during and during._replace(strength=0.0, tried=()), reported)
        if key not in self._engines:
            setting = self._setting
            self._engines[key] = build_engine(
                setting.config,
                intervention,
                self._feed,
                seeds=setting.seeds if reported else setting.tuned,
                first_seed=setting.first_seed if reported else TUNED_FROM,
            )
        return self._engines[key]


def rows_of(measured: Layers, first_seed: int, epoch: int) -> list[Layer]:
    """A row for each seed and layer, of four significant digits."""
    channels = np.array([shape[-1] for shape in measured.shapes])
    measured = measured._replace(
        effective_before=measured.effective_before / channels,
        effective_after=measured.effective_after / channels,
    )
    names = Layer._fields[3:]
    return [
        Layer(
            first_seed + place,
            epoch,
            name,
            *(float(f"{getattr(measured, field)[place, layer]:.4g}") for field in names),
        )
        for place in range(len(measured.norm))
        for layer, name in enumerate(measured.names)
    ]


def described_versions() -> str:
    """Of all that results can depend on, in one line."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())
