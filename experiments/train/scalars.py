"""The quantities of every epoch as TensorBoard scalars, one TensorBoard run a seed."""

import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import Epoch


class Scalars:
    """Writes each epoch to `folder/tensorboard/seed-0`, `seed-1` and so on.

    What was added is in the files when `add` returns. That is why this is no
    `SummaryWriter`, which leaves the writing to a queue: a killed process would lose it,
    and a full disk would go unheard.

    Args:
        folder: the run folder.
        purge_step: the first epoch that will be added. TensorBoard forgets what earlier
            processes of the same run added from there on, so a resumed run has one point
            an epoch.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._folder = folder / "tensorboard"
        self._purge_step = purge_step
        # TensorBoard reads the files of a run in the order of their names.
        self._name = f"events.out.tfevents.{time.time():.9f}.{socket.gethostname()}"

    def add(self, epoch: Epoch) -> None:
        """Writes all that is finite of an epoch.

        Raises:
            OSError: it cannot be written.
        """
        # Imports PyTorch, where that is installed, which takes seconds.
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        seeds = len(epoch.loss)
        values = {
            name: np.broadcast_to(value, seeds)
            for name, value in epoch._asdict().items()
            if name != "epoch"
        }
        for seed in range(seeds):
            path = self._folder / f"seed-{seed}" / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            scalars = [
                Summary.Value(tag=name, simple_value=value[seed])
                for name, value in values.items()
                if np.isfinite(value[seed])
            ]
            events = [Event(step=epoch.epoch, summary=Summary(value=scalars))]
            if not path.exists():
                start = SessionLog(status=SessionLog.START)
                events = [
                    Event(file_version="brain.Event:2"),
                    Event(step=self._purge_step, session_log=start),
                    *events,
                ]
            with path.open("ab") as file:
                file.write(b"".join(map(record, events)))


def record(event: Any) -> bytes:
    """An event as it is in a file: its length and itself, each with its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    event.wall_time = time.time()
    content = event.SerializeToString()
    parts = struct.pack("<Q", len(content)), content
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in parts)
