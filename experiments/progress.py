"""What a run shows while it goes on: one line that is always up to date.

Where there is no terminal to write it anew, in a log file, it is a line an epoch.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import rich.progress
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from experiments.data.load import Track
from experiments.interval import mean
from experiments.record import Epoch

WORTH_SHOWING = 10  # parts of what is done before training
WITH_BAR = 100  # columns of a console, of which everything else takes 80
SECONDS_OF_SPEED = 3600.0  # that the time left is told by: programs may be long


class Display:
    """Epoch, loss, accuracy, scale-free loss, images a second, time that is left."""

    def __init__(self, progress: Progress, epochs: int, steps: int):
        self._progress, self._epochs, self._steps = progress, epochs, steps
        self._task = progress.add_task("compiling", total=epochs * steps, figures="")
        self._closed = ""

    def reach(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Shows that `step` steps of an epoch are done, with their mean loss."""
        done = (epoch - 1) * self._steps + step
        self._progress.update(
            self._task,
            completed=done,
            description=self._of(epoch),
            figures=self._figures(loss, rate),
        )

    def close(self, epoch: Epoch) -> None:
        """Keeps in sight what an epoch came to; without a terminal, prints it."""
        accuracy, similarity = mean(epoch.accuracy), mean(epoch.scale_free_loss)
        held_out = "" if np.isnan(accuracy) else f"  accuracy {accuracy:.1f} %"
        self._closed = f"{held_out}  summed scale-free loss {similarity:.3f}"
        if self._progress.disable and epoch.epoch > 0:
            figures = self._figures(mean(epoch.loss), epoch.images_per_second)
            text = f"{self._of(epoch.epoch)}  {figures}"
            if epoch.epoch < self._epochs:
                left = TimeRemainingColumn().render(self._progress.tasks[self._task])
                text += f"  {left} left"
            self._progress.console.print(text, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Says what is going on besides training."""
        self._progress.update(self._task, description=text)

    def warn(self, text: str) -> None:
        """Prints a warning, above the line."""
        console, line = self._progress.console, f"warning: {text}"
        console.print(line, style="yellow", highlight=False, soft_wrap=True)

    def _of(self, epoch: int) -> str:
        return f"epoch {epoch}/{self._epochs}"

    def _figures(self, loss: float, rate: float) -> str:
        return f"loss {loss:.3f}{self._closed}  {rate:,.0f} img/s"


def stderr(quiet: bool = False) -> Console:
    """The console to show it on; a file is none, whatever `FORCE_COLOR` says."""
    terminal = None if sys.stderr.isatty() else False
    return Console(stderr=True, quiet=quiet, force_terminal=terminal)


@contextmanager
def display(console: Console, epochs: int, steps: int) -> Iterator[Display]:
    """The line, of a run of that many epochs of that many steps.

    What a console is too narrow for is the bar, and then the last of the figures.
    """
    columns = (
        TextColumn("{task.description}"),
        *([BarColumn(bar_width=8)] if console.width >= WITH_BAR else []),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(
        *columns,
        console=console,
        expand=True,  # to the console's width, of which the figures have the rest
        speed_estimate_period=SECONDS_OF_SPEED,
        disable=not (console.is_interactive or console.is_jupyter),
    ) as progress:
        yield Display(progress, epochs, steps)


def tracked(console: Console) -> Track:
    """Shows the decoding of images, where that takes a while."""

    def track(starts: Iterable[int], what: str) -> Iterable[int]:
        starts = list(starts)
        return rich.progress.track(
            starts, what, console=console, disable=len(starts) < WORTH_SHOWING
        )

    return track
