"""Trains the networks of a trial, and measures them."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

import convsim_jax as cs
from experiments.compare.results import Epoch, Layer, Outcome, Score, Trial
from experiments.compare.settings import Setting
from experiments.data.corruption import CORRUPTIONS, Corruption, corrupted
from experiments.fit.build import build_engine
from experiments.fit.engine import Engine, Scored
from experiments.fit.epochs import begin, diverged, fit
from experiments.fit.feeds import Feed
from experiments.fit.optimizer import Factors
from experiments.fit.step import Variables
from experiments.measurement import Layers
from experiments.run_folder import versions


class Trainer:
    """Trains the trials of a setting; those that train alike share their programs.

    `open_feed` opens the images, of which that fraction is for validation.
    """

    def __init__(self, setting: Setting, open_feed: Callable[[float], Feed]):
        self._setting, self._open_feed = setting, open_feed
        self._feeds: dict[float, Feed] = {}
        self._engines: dict[Any, Engine] = {}

    def feed(self, reported: bool) -> Feed:
        """The images of trials that are reported, or of those that choose."""
        whole = reported and self._setting.whole
        validation = 0.0 if whole else self._setting.config.validation
        if validation not in self._feeds:
            self._feeds[validation] = self._open_feed(validation)
        return self._feeds[validation]

    def engine(self, trial: Trial, seeds: range) -> Engine:
        """The programs of a trial, not compiled yet unless they were run."""
        setting, reported = self._setting, self._reported(trial)
        intervention = setting.intervention(trial.method, trial.strength)
        during = intervention.during
        if during:
            during = during._replace(strength=0, tried=())  # strengths share programs
        alike = (reported, len(seeds))  # but for the optimizer
        key = (*alike, during, intervention.optimizer, trial.decay > 0)
        if key not in self._engines:
            feed = self.feed(reported)
            engine = build_engine(setting.config, intervention, feed, seeds=len(seeds))
            for known, other in self._engines.items():
                if known[:2] == alike:
                    engine.adopt(other)
            self._engines[key] = engine
        return self._engines[key].from_seed(seeds.start)

    def run(
        self, trial: Trial, seeds: range, on_epoch: Callable[[int, np.ndarray], None]
    ) -> Outcome:
        """Trains these seeds, and measures those of a trial that is reported.

        A seed fixes the random weights and the order of the images, whatever the
        method, so that methods can be compared seed by seed. `on_epoch` is
        told each epoch that is done, and its accuracies.
        """
        setting, config = self._setting, self._setting.config
        reported, engine = self._reported(trial), self.engine(trial, seeds)
        feed, first = self.feed(reported), seeds.start
        intervention = setting.intervention(trial.method, trial.strength)
        decay = trial.decay if setting.decays and trial.decay else None
        factors = Factors(trial.learning_rate, intervention.strength, decay)
        state = begin(engine, feed, intervention, factors)
        outcome = Outcome([], [], [], {})

        def measure(epoch: int, variables: Variables, when: str = "") -> None:
            if reported:
                images = feed.sample[: setting.measured]
                measured = engine.layers(variables, images)
                outcome.layers.extend(rows_of(measured, first, epoch))
            if setting.fixed and when:
                one = jax.tree.map(lambda leaf: leaf[0], variables)
                kernels = cs.conv_kernels(one["params"], layers=engine.options.layers)
                found = {**kernels, **engine.correlations(one, images)}
                outcome.kernels.update(
                    {f"{when}/{name}": np.asarray(array) for name, array in found.items()}
                )

        measure(0, state.network.variables, "start")
        followed: Literal["validation", "test"] = (
            "validation" if feed.sizes["validation"] else "test"
        )
        accuracy, seconds, chosen = np.full(engine.seeds, np.nan), 0.0, state.chosen
        for last, closed in fit(
            engine,
            feed,
            state,
            factors,
            epochs=config.epochs,
            scored=followed,
            scores=lambda epoch: reported or epoch == config.epochs,
        ):
            if closed is None:
                continue
            accuracy, chosen = closed.accuracy, last.chosen
            seconds += closed.seconds
            if reported:
                for place in range(engine.seeds):
                    figures = float(closed.loss[place]), float(accuracy[place])
                    outcome.epochs.append(Epoch(first + place, closed.epoch, *figures))
            if closed.epoch == config.epochs // 2:
                measure(closed.epoch, closed.variables)
            on_epoch(closed.epoch, accuracy)
        measure(config.epochs, chosen.variables, "end")
        gone = diverged(chosen)

        def score(corruption: Corruption | None = None) -> Scored:
            batches = feed.score(trial.split)
            if corruption:
                batches = corrupted(batches, corruption)
            found = engine.score(chosen.variables, batches)
            return Scored(*(np.where(gone, np.nan, x) for x in found))

        more = np.full((3, engine.seeds), np.nan)
        if trial.split == "test" and not setting.fixed:
            accuracy, more[0] = score()
            for place, kinds in enumerate(CORRUPTIONS.values(), 1):
                more[place] = np.mean([score(kind).accuracy for kind in kinds], 0)
        elif trial.split != followed:
            accuracy = score().accuracy
        packages = ", ".join(f"{name} {number}" for name, number in versions().items())
        about = (round(seconds, 1), jax.devices()[0].device_kind, packages)
        epochs = map(int, np.asarray(chosen.diverged_at))
        columns = (np.asarray(accuracy, float), *more.round(4))
        for seed, at, figures in zip(
            seeds, epochs, zip(*columns, strict=True), strict=True
        ):
            accurate, *others = map(float, figures)
            outcome.scores.append(Score(seed, accurate, at, *about, *others))
        return outcome

    def _reported(self, trial: Trial) -> bool:
        return self._setting.fixed or trial.split == "test"


def rows_of(measured: Layers, first_seed: int, epoch: int) -> list[Layer]:
    """A row for each seed and layer, of four significant digits."""
    channels = np.array([shape[-1] for shape in measured.shapes])
    columns = measured._asdict()
    for name in ("effective_before", "effective_after"):
        columns[name] = columns[name] / channels
    rows = []
    for seed, place in np.ndindex(measured.norm.shape):
        figures = [float(f"{columns[x][seed, place]:.4g}") for x in Layer._fields[3:]]
        rows.append(Layer(first_seed + seed, epoch, measured.names[place], *figures))
    return rows
