"""The quantities of every epoch as TensorBoard scalars, one TensorBoard run a seed."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from experiments.train.record import Epoch


class Scalars:
    """Writes each epoch to `folder/tensorboard/seed-0`, `seed-1` and so on.

    What was added is on the disk when `add` returns. That is why this is no
    `SummaryWriter`, which leaves the writing to a queue, and a killed process loses it.

    Args:
        folder: the run folder.
        purge_step: the first epoch that will be added. TensorBoard forgets what earlier
            processes of the same run added from there on, so a resumed run has one point
            an epoch.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._folder = folder / "tensorboard"
        self._purge_step = purge_step
        self._writers: list[EventsWriter] = []

    def add(self, epoch: Epoch) -> None:
        """Writes all that is finite of an epoch.

        Raises:
            OSError: it cannot be written.
        """
        seeds = len(epoch.loss)
        values = {
            name: np.broadcast_to(value, seeds)
            for name, value in epoch._asdict().items()
            if name != "epoch"
        }
        self._writers = self._writers or [self._open(seed) for seed in range(seeds)]
        for seed, writer in enumerate(self._writers):
            scalars = [
                Summary.Value(tag=name, simple_value=value[seed])
                for name, value in values.items()
                if np.isfinite(value[seed])
            ]
            _write(writer, Event(step=epoch.epoch, summary=Summary(value=scalars)))

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, seed: int) -> EventsWriter:
        folder = self._folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        # The file's name has the time in whole seconds: not enough for quick restarts.
        suffix = f".{time.time_ns() % 10**9:09}"
        writer = EventsWriter(str(folder / "events"), suffix)
        start = SessionLog(status=SessionLog.START)
        _write(writer, Event(step=self._purge_step, session_log=start))
        return writer


def _write(writer: EventsWriter, event: Event) -> None:
    event.wall_time = time.time()
    writer.write_event(event)
    writer.flush()
