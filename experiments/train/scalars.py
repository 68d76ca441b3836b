"""The quantities of every epoch as TensorBoard scalars, one TensorBoard run a seed."""

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.measurement import Layers
from experiments.record import Epoch

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter


class Scalars:
    """Writes to `folder/tensorboard/seed-0`, `seed-1` and so on.

    What was added is in the files when `add` returns: tensorboardX's `SummaryWriter`
    would leave that to a thread, a killed process would lose it, and a full disk would go
    unheard. This is the writer inside of it.

    `purge_step` is the first epoch that will be added. TensorBoard forgets what earlier
    processes of the same run added from there on, so a resumed run has one point
    an epoch.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._folder = folder / "tensorboard"
        self._purge_step = purge_step
        self._writers: list[EventsWriter] = []  # one a seed
        weakref.finalize(self, _close, self._writers)

    def add(self, epoch: Epoch) -> None:
        """Writes all that is finite of an epoch."""
        values = epoch._asdict()
        self._write(values.pop("epoch"), values)

    def add_layers(self, epoch: int, layers: Layers) -> None:
        """Writes the mean over layers of what was measured of them."""
        means = {
            f"layers/{name}": value.mean(1)
            for name, value in layers._asdict().items()
            if isinstance(value, np.ndarray)
        }
        self._write(epoch, means)

    def _write(self, step: int, values: dict[str, Any]) -> None:
        # Imports PyTorch, where that is installed, which takes seconds.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        rows = np.stack(np.broadcast_arrays(*values.values()), -1)
        for seed in range(len(self._writers), len(rows)):
            folder = self._folder / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a run in the order of their names, which
            # have the second in which they were opened.
            suffix = f".{len(list(folder.iterdir())):04}"
            self._writers.append(writer := EventsWriter(str(folder / "events"), suffix))
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(step=self._purge_step, session_log=start))
        for writer, row in zip(self._writers, rows, strict=True):
            for name, value in zip(values, row, strict=True):
                if np.isfinite(value):
                    writer.write_event(Event(step=step, summary=scalar(name, value)))
            writer.flush()


def _close(writers: "list[EventsWriter]") -> None:
    for writer in writers:
        writer.close()
