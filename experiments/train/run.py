"""A run: epochs, checkpoints between them, and what it comes to."""

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import convsim_jax as cs
from experiments.fit.devices import agreed
from experiments.fit.engine import Chosen, Engine
from experiments.fit.epochs import Closed, Pace, State, begin, diverged, fit
from experiments.fit.feeds import Feed
from experiments.fit.optimizer import Factors, learning_rates
from experiments.fit.step import Network, Variables
from experiments.interventions import intervention
from experiments.measurement import Layers
from experiments.options import Config
from experiments.progress import Display
from experiments.record import Epoch, Outcome, revived, write_kernels
from experiments.run_folder import plain, write_json, writing
from experiments.train import interruption
from experiments.train.checkpoints import Checkpoints
from experiments.train.loading import load_run
from experiments.train.scalars import Scalars

MEASURED_IMAGES = 64


class Run:
    """Trains the networks of all seeds, from the last checkpoint on.

    Attributes:
        history: the epochs that are done, the network before training first.
    """

    def __init__(
        self, config: Config, engine: Engine, feed: Feed, folder: Path, display: Display
    ):
        self.config, self.engine, self.feed = config, engine, feed
        self.folder, self.display = folder, display
        self.history: list[Epoch] = []
        self.method = intervention(config.method).of_steps(config.steps)
        strength = self.method.strength if config.strength is None else config.strength
        self.factors = Factors(config.learning_rate, strength)
        self.rates = learning_rates(
            config.schedule,
            config.learning_rate,
            config.milestones,
            config.epochs,
            feed.steps,
        )
        self.first = jax.process_index() == 0  # of several processes, the one that writes

    def __call__(self) -> Outcome:
        """Trains, and returns what it came to; `results.json` holds the same."""
        self.display.say("compiling")
        self.checkpoints = Checkpoints(self.folder, self.display.warn)
        first, start = self._begin()
        self._saved = time.monotonic()
        self._scalars = Scalars(self.folder, first.epoch if self.history else 0)
        with interruption.noticed() as interrupted:
            if not self.history:
                self._before_training(first, start)
                self._save(first, start)
            before = state = first
            for state, closed in fit(
                self.engine,
                self.feed,
                first,
                self.factors,
                epochs=self.config.epochs,
                scored="validation",
                best=bool(self.feed.sizes["validation"]),
                pace=Pace(),
            ):
                if closed is None:
                    self._show(before, state)
                else:
                    self._close(closed)
                before = state
                ended = state.epoch > self.config.epochs
                late = (
                    time.monotonic() - self._saved > 60 * self.config.checkpoint_minutes
                )
                stopped = not agreed(not interrupted()) and not ended
                if stopped or ended or agreed(late):
                    self._save(state, start)
                if stopped:
                    raise KeyboardInterrupt(
                        f"the same command with --output {self.folder} goes on at epoch "
                        f"{state.epoch}"
                    )
        self.checkpoints.close()
        return self._finish(state.chosen, start)

    def remake_kernels(self) -> None:
        """Writes `kernels.npz` again, of a run that is finished."""
        self._start()
        params = load_run(self.folder)[1]["params"]
        self._write_kernels(cs.conv_kernels(params, layers=self.engine.options.layers))

    def _write_kernels(self, end: Mapping[str, Any]) -> None:
        with writing(self.folder):
            write_kernels(self.folder, start=self._start_kernels, end=end)

    def _start(self) -> State:
        state = begin(self.engine, self.feed, self.method, self.factors)
        self._start_kernels = self._kernels(state.network.variables)
        return state

    def _kernels(self, variables: Variables) -> dict[str, np.ndarray]:
        """The conv kernels of the first seed's network, by path."""
        one = jax.tree.map(lambda leaf: np.asarray(leaf)[0], variables["params"])
        kernels = cs.conv_kernels(one, layers=self.engine.options.layers)
        return {path: np.asarray(kernel) for path, kernel in kernels.items()}

    def _begin(self) -> tuple[State, Layers]:
        """The state of the last checkpoint, or of networks before training."""
        state = self._start()
        restored = self.checkpoints.restore((state.network, state.chosen))
        if restored is None:
            return state, self._measured(state.network.variables)
        (network, chosen), progress = restored
        self.history = [revived(Epoch, fields) for fields in progress["history"]]
        if self.first:
            print(f"going on at epoch {progress['epoch']}", file=sys.stderr)
        place = (progress[name] for name in ("epoch", "step", "seconds"))
        state = State(Network(*network), Chosen(*chosen), *place)
        return state, revived(Layers, progress["start"])

    def _save(self, state: State, start: Layers) -> None:
        # A number that rises: closing an epoch counts as one more step.
        number = (state.epoch - 1) * (self.feed.steps + 1) + state.step
        progress = {name: getattr(state, name) for name in ("epoch", "step", "seconds")}
        progress |= {"start": start, "history": self.history}
        self.checkpoints.save(number, (state.network, state.chosen), plain(progress))
        self._saved = time.monotonic()

    def _show(self, before: State, state: State) -> None:
        steps = state.step - before.step
        taken = max(state.seconds - before.seconds, 1e-9)
        images = steps * self._images_a_step
        loss = np.asarray(state.network.loss) / state.step
        self.display.reach(state.epoch, state.step, float(np.mean(loss)), images / taken)

    @property
    def _images_a_step(self) -> int:
        return self.config.batch_size * self.config.seeds

    def _before_training(self, state: State, layers: Layers) -> None:
        variables = state.network.variables
        nothing = np.full(self.engine.seeds, math.nan)
        accuracy = self.engine.score(variables, self.feed.score("validation")).accuracy
        self._close(Closed(0, nothing, nothing, accuracy, variables, 0.0))
        if self.first:
            with writing(self.folder):
                self._scalars.add_layers(0, layers)

    def _close(self, closed: Closed) -> None:
        """Adds an epoch to the history."""
        kernels = self.engine.kernels(closed.variables).total()
        images = self.feed.steps * self._images_a_step
        gone = np.isnan(closed.loss) & (closed.epoch > 0)
        row = Epoch(
            epoch=closed.epoch,
            seconds=closed.seconds,
            images_per_second=images / closed.seconds if closed.seconds else math.nan,
            learning_rate=float(self.rates(max(closed.epoch * self.feed.steps - 1, 0))),
            loss=closed.loss,
            train_accuracy=closed.train_accuracy,
            accuracy=closed.accuracy,
            **{
                name: np.where(gone, math.nan, value)
                for name, value in kernels._asdict().items()
            },
        )
        self.history.append(row)
        self.display.close(row)
        if self.first:
            with writing(self.folder):
                self._scalars.add(row)
                write_json(self.folder / "history.json", self.history)

    def _measured(self, variables: Variables) -> Layers:
        """Measures the layers."""
        self.display.say("measuring")
        images = self.feed.sample[:MEASURED_IMAGES]
        return self.engine.layers(variables, images)

    def _finish(self, chosen: Chosen, start: Layers) -> Outcome:
        self.display.say("scoring the test images")
        accuracy = self.engine.score(chosen.variables, self.feed.score("test")).accuracy
        end = self._measured(chosen.variables)
        params = chosen.variables["params"]
        outcome = Outcome(
            parameters=sum(x.size for x in jax.tree.leaves(params)) // self.config.seeds,
            scored="test",
            images=self.feed.sizes["test"],
            accuracy=np.where(diverged(chosen), np.nan, accuracy),
            chosen_epoch=np.asarray(chosen.epoch),
            diverged_at=np.asarray(chosen.diverged_at),
            seconds=sum(row.seconds for row in self.history[1:]),
            start=start,
            end=end,
        )
        if self.first:
            self._write_kernels(self._kernels(chosen.variables))
            with writing(self.folder):
                self._scalars.add_layers(self.history[-1].epoch, end)
                write_json(self.folder / "results.json", outcome)
        return outcome
