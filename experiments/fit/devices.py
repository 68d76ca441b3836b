"""Where arrays are: on every device, or the rows of a batch divided among them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.data.images import Images


@cache
def mesh() -> Mesh:
    """All devices of all processes along one axis, that of a batch's images."""
    return jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))


def everywhere() -> NamedSharding:
    """Of an array that every device has whole."""
    return NamedSharding(mesh(), PartitionSpec())


def by_row() -> NamedSharding:
    """Of an array whose rows the devices divide among themselves."""
    return NamedSharding(mesh(), PartitionSpec("batch"))


def replicated(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Arrays of the host, the same on every process, copied to every device."""

    def copy(array: np.ndarray) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(
            array.shape, everywhere(), lambda index: array[index]
        )

    return jax.tree.map(copy, tree)


def divided(local: Images) -> Images:
    """A batch, of which every process gives its own rows, on the devices."""
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(by_row(), np.asarray(rows)),
        local,
    )


def rows_of_this_process(count: int) -> slice:
    """This process's part of a batch of `count` images."""
    size = count // jax.process_count()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def agreed(number: int) -> int:
    """The least that a process says, on all of them."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).min())


@contextmanager
def together() -> Iterator[None]:
    """What cannot go on in one process goes on in none; the others would wait for it.

    Raises:
        OSError: another process failed, and says why.
    """
    failure = None
    try:
        yield
    except (ValueError, OSError) as error:
        failure = error
    if not agreed(failure is None):
        raise failure or OSError("another process of the run failed, and says why")


def check_shared(folder: Path) -> None:
    """Raises a `ValueError` in a process that does not see what the first has written."""
    if not (folder / "config.json").exists():
        raise ValueError(
            f"--output is {folder}, in which process {jax.process_index()} does not see "
            "what process 0 has written; expected a folder that all processes share"
        )


def join() -> None:
    """Joins the other processes of a run; to be called before JAX finds its devices."""
    numbers: dict[str, Any] = {}
    for argument in ("num_processes", "process_id"):
        name = f"JAX_{argument.upper()}"
        if name in os.environ:
            if not os.environ[name].isdecimal():
                raise ValueError(f"{name} is {os.environ[name]!r}; expected a number")
            numbers[argument] = int(os.environ[name])
    try:
        jax.distributed.initialize(**numbers)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "--distributed: no other processes were found; on a TPU pod or in Slurm they "
            "are found by themselves, elsewhere set JAX_COORDINATOR_ADDRESS, "
            f"JAX_NUM_PROCESSES and JAX_PROCESS_ID ({error})"
        ) from error
