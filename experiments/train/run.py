"""A run: epochs, checkpoints between them, and what it comes to."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import convsim_jax as cs
from experiments.fit.devices import agreed
from experiments.fit.engine import Chosen, Engine
from experiments.fit.feeds import Feed
from experiments.fit.optimizer import learning_rates
from experiments.fit.step import Network, Variables
from experiments.measurement import Layers
from experiments.methods import METHODS, Objective
from experiments.options import Config
from experiments.progress import Display
from experiments.record import Epoch, Outcome, revived
from experiments.report.reading import read_kernels
from experiments.run_folder import plain, replacing, write_json, writing
from experiments.train import interruption
from experiments.train.checkpoints import Checkpoints
from experiments.train.scalars import Scalars

MEASURED_IMAGES = 64
SECONDS_A_PROGRAM = 1.0


class Run:
    """Trains the networks of all seeds, from the last checkpoint on.

    Args:
        config: what to do.
        engine: the programs.
        feed: the images.
        folder: the run's.
        display: shows how far it is.

    Attributes:
        history: the epochs that are done, the network before training first.
    """

    def __init__(
        self, config: Config, engine: Engine, feed: Feed, folder: Path, display: Display
    ):
        self.config, self.engine, self.feed = config, engine, feed
        self.folder, self.display = folder, display
        self.history: list[Epoch] = []
        method = METHODS[config.method]
        self.strength = method.strength if config.strength is None else config.strength
        self.rates = learning_rates(
            config.schedule,
            config.learning_rate,
            config.milestones,
            config.epochs,
            feed.steps,
        )
        self.first = jax.process_index() == 0  # of several processes, the one that writes

    def __call__(self) -> Outcome:
        """Trains, and returns what it came to; `results.json` holds the same.

        Raises:
            KeyboardInterrupt: it was interrupted, and can be gone on with.
            OSError: the folder cannot be written.
        """
        self.display.say("compiling")
        checkpoints = Checkpoints(self.folder, self.display.warn)
        start = self._start()
        network, chosen = self.engine.networks(start, self.strength)
        restored = checkpoints.restore((network, chosen))
        if restored is None:
            layers = self._measured(start, "start")
            epoch, step, seconds = 1, 0, 0.0
        else:
            (network, chosen), progress = restored
            network, chosen = Network(*network), Chosen(*chosen)
            epoch, step, seconds = (progress[k] for k in ("epoch", "step", "seconds"))
            layers = revived(Layers, progress["start"])
            self.history = [revived(Epoch, fields) for fields in progress["history"]]
            if self.first:
                print(f"going on at epoch {epoch}", file=sys.stderr)
        del start

        def save() -> None:
            # A number that rises: closing an epoch counts as one more step.
            number = (epoch - 1) * (self.feed.steps + 1) + step
            checkpoints.save(
                number,
                (network, chosen),
                plain(
                    {
                        "epoch": epoch,
                        "step": step,
                        "seconds": seconds,
                        "start": layers,
                        "history": self.history,
                    }
                ),
            )

        saved = time.monotonic()
        self._scalars = Scalars(self.folder, epoch if self.history else 0)
        with interruption.noticed() as interrupted:
            if restored is None:
                self._add(network, chosen, 0, math.nan)
                save()
            pace = Pace()
            while epoch <= self.config.epochs and not diverged(chosen).all():
                while step < self.feed.steps:
                    size = agreed(0 if interrupted() else pace.steps)
                    if not size:
                        save()
                        raise KeyboardInterrupt(
                            f"the same command with --output {self.folder} goes on at "
                            f"epoch {epoch}"
                        )
                    steps = range(step, min(step + size, self.feed.steps))
                    compiling = self.engine.seconds_compiling
                    clock = time.perf_counter()
                    network = self.feed.train(
                        self.engine, network, self.strength, epoch, steps
                    )
                    loss = np.asarray(network.loss) / steps.stop  # waits for the steps
                    taken = time.perf_counter() - clock
                    taken -= self.engine.seconds_compiling - compiling
                    pace.took(len(steps), taken)
                    seconds += taken
                    step = steps.stop
                    rate = len(steps) * self._images_a_step / taken
                    self.display.reach(epoch, step, float(np.mean(loss)), rate)
                    due = time.monotonic() - saved > 60 * self.config.checkpoint_minutes
                    if step < self.feed.steps and agreed(due):
                        save()
                        saved = time.monotonic()
                network, chosen = self._close(network, chosen, epoch, seconds)
                epoch, step, seconds = epoch + 1, 0, 0.0
                due = time.monotonic() - saved > 60 * self.config.checkpoint_minutes
                if agreed(due or epoch > self.config.epochs):
                    save()
                    saved = time.monotonic()
        checkpoints.close()
        return self._finish(chosen, layers)

    @property
    def _images_a_step(self) -> int:
        return self.config.batch_size * self.config.seeds

    def _start(self) -> Variables:
        def minimize(
            params: Any, objective: Objective, preserve_norm: bool | None = None
        ) -> Any:
            if preserve_norm is None:
                preserve_norm = self.config.preserve_norm
            return cs.minimize_similarity(
                params,
                self.config.steps,
                preserve_norm=preserve_norm,
                pairs=self.config.pairs,
                **objective._asdict(),
            )[0]

        method = METHODS[self.config.method]
        return self.engine.start(
            lambda params: method.initialize(params, minimize), self.feed.sample
        )

    def _close(
        self, network: Network, chosen: Chosen, epoch: int, seconds: float
    ) -> tuple[Network, Chosen]:
        """The epoch's end: scores, chooses, and adds to the history."""
        self.display.say("scoring")
        accuracy = self.engine.score(network.variables, self.feed.score("validation"))
        # Without images to choose by, the later, the better.
        score = (
            accuracy if self.feed.sizes["validation"] else np.full_like(accuracy, epoch)
        )
        before = network
        network, chosen = self.engine.close_epoch(network, chosen, epoch, score)
        self._add(before, chosen, epoch, seconds, accuracy)
        return network, chosen

    def _add(
        self,
        network: Network,
        chosen: Chosen,
        epoch: int,
        seconds: float,
        accuracy: np.ndarray | None = None,
    ) -> None:
        if accuracy is None:
            accuracy = self.engine.score(network.variables, self.feed.score("validation"))
        kernels = self.engine.kernels(network.variables, self.config.pairs).total()
        steps, batch = self.feed.steps, self.config.batch_size
        gone = diverged(chosen)

        def of_seeds(values: Any) -> np.ndarray:
            return np.where(gone, np.nan, np.asarray(values, np.float64))

        trained = np.nan if epoch == 0 else 1.0
        row = Epoch(
            epoch=epoch,
            seconds=seconds,
            images_per_second=steps * self._images_a_step / seconds
            if seconds
            else np.nan,
            learning_rate=float(self.rates(max(epoch * steps - 1, 0))),
            loss=of_seeds(network.loss) / steps * trained,
            train_accuracy=100 * of_seeds(network.right) / (steps * batch) * trained,
            accuracy=of_seeds(accuracy),
            paper_loss=of_seeds(kernels.paper_loss),
            scale_free_loss=of_seeds(kernels.scale_free_loss),
            norm=of_seeds(kernels.norm),
        )
        self.history.append(row)
        self.display.close(row)
        if self.first:
            with writing(self.folder):
                self._scalars.add(row)
                write_json(self.folder / "history.json", self.history)

    def _measured(self, variables: Variables, when: str) -> Layers:
        """Measures the layers; keeps the first seed's kernels in `kernels.npz`."""
        self.display.say("measuring")
        layers = self.engine.layers(
            variables, self.feed.sample[:MEASURED_IMAGES], self.config.pairs
        )
        if self.first:
            one = jax.tree.map(lambda leaf: np.asarray(leaf)[0], variables["params"])
            kernels = cs.conv_kernels(one)
            arrays = read_kernels(self.folder) if when == "end" else {}
            arrays |= {f"{when}/{path}": np.asarray(x) for path, x in kernels.items()}
            kept = self.folder / "kernels.npz"
            with writing(self.folder), replacing(kept, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        return layers

    def _finish(self, chosen: Chosen, start: Layers) -> Outcome:
        self.display.say("scoring the test images")
        accuracy = self.engine.score(chosen.variables, self.feed.score("test"))
        end = self._measured(chosen.variables, "end")
        outcome = Outcome(
            parameters=sum(
                leaf.size // self.config.seeds
                for leaf in jax.tree.leaves(chosen.variables["params"])
            ),
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
            with writing(self.folder):
                write_json(self.folder / "results.json", outcome)
        return outcome


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
