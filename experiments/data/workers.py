"""Processes that read and decode images, started by Grain.

Each is a new interpreter, which imports the main module: a script that streams images
with workers needs its `if __name__ == "__main__"`.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import grain
import jax
from absl import flags

# Elements that each worker has ready.
BUFFERED = 2
# An array of that many bytes comes in shared memory, a smaller one through a pipe.
SHARED = 1 << 16


def in_workers(dataset: grain.MapDataset, workers: int) -> Iterator[Any]:
    """The elements of a dataset in order, each made by one of several processes.

    Each worker gets a copy of the dataset; 0 of them are none but this process. They end
    when the iterator is closed or dropped. What making an element raised comes out here.
    """
    if workers:
        _prepare()
    elements = grain.experimental.WithOptionsIterDataset(
        dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)),
        grain.experimental.DatasetOptions(min_shm_size=SHARED),
    ).mp_prefetch(grain.MultiprocessingOptions(workers, BUFFERED), _start)
    iterator = iter(elements)
    try:
        yield from iterator
    except RuntimeError as error:  # Grain's, of a worker that is gone
        raise OSError(
            f"a process that reads images died; with fewer --workers or a smaller "
            f"--batch-size they need less memory ({str(error).partition('. ')[0]})"
        ) from error
    except Exception as error:
        if "pickle" not in str(error):
            raise
        raise ValueError(
            f"--workers expects 0 for images that cannot be copied to processes: {error}"
        ) from error
    finally:
        iterator.close()


def _prepare() -> None:
    # Locks of earlier workers are not to be found while new ones are being registered.
    gc.collect()
    if not flags.FLAGS.is_parsed():  # Grain asks for its flags
        flags.FLAGS.mark_as_parsed()
    # Shared memory that is left when a run ends early is freed by Python's tracker,
    # which need not say so below the error that ended the run.
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _start(index: int, count: int) -> None:
    """What each worker does first.

    It leaves accelerators and interruptions to its parent, and ends when that does, be it
    killed.
    """
    jax.config.update("jax_platforms", "cpu")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
