"""Checkpoints of a run: the last two, each written whole or not at all by Orbax.

Orbax does not notice a changed byte of the weights, and its threads print what they
stumble over in damaged files. So `checkpoints.json` has the checksums of all files, and
what is damaged is not read.
"""

import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.run_folder import read_json, write_json, writing

KEPT = 2  # the last, and one in case it is damaged


class Checkpoints:
    """The state of a run and how far it is, under a number that rises.

    `folder` is the run's, which several processes must share; `warn` is told of
    checkpoints that are left out.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]):
        # What is wrong is raised too: once, of all the writes that a full disk ends.
        for logger in ("absl", "asyncio", "concurrent.futures"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unless_too_late
        self._folder, self._warn = folder, warn
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            enable_async_checkpointing=False,  # a step is often shorter than a save
            cleanup_tmp_directories=True,
        )
        with writing(folder):
            self._manager = ocp.CheckpointManager(
                (folder / "checkpoints").absolute(),
                options=options,
                item_names=("state", "progress"),
            )

    def save(
        self, number: int, state: chex.ArrayTree, progress: Mapping[str, Any]
    ) -> None:
        """Writes a checkpoint of a number that rises; nothing if it is there already.

        Raises:
            OSError: it cannot be written; the earlier ones are still there.
        """
        if number == self._manager.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
        )
        with writing(self._folder):
            try:
                self._manager.save(number, args=items, force=True)
            except (ValueError, RuntimeError) as error:
                if (told := reason(error)) is None:
                    raise
                raise OSError(told) from error
            if jax.process_index() == 0:
                paths = (path_of(self._folder, n) for n in self._manager.all_steps())
                known = {path.name: checksums(path) for path in paths}
                write_json(self._folder / "checkpoints.json", known)

    def restore(self, like: chex.ArrayTree) -> tuple[chex.ArrayTree, Any] | None:
        """The state and the progress of the last checkpoint that is whole, if any.

        The state is of the shapes and shardings of `like`.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        for number in sorted(self._manager.all_steps(), reverse=True):
            path = path_of(self._folder, number)
            if not is_damaged(path):
                restored = self._manager.restore(number, args=items)
                return restored.state, restored.progress
            self._warn(f"{path} is damaged, and left out")
            with writing(self._folder):
                self._manager.delete(number)
        return None

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()
        sys.unraisablehook = self._hook

    def _unless_too_late(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Passes on what no one can be told, but for a write that fails after another."""
        if str(unraisable.exc_value) != "Event loop is closed":
            self._hook(unraisable)


def path_of(folder: Path, number: int) -> Path:
    """Where a run has its checkpoint of that number."""
    return folder / "checkpoints" / str(number)


def load(path: Path) -> Any:
    """The state in a checkpoint: numpy arrays, named tuples as dicts."""
    state = path.absolute() / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(state).item_metadata.tree
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        return checkpointer.restore(state, ocp.args.PyTreeRestore(restore_args=kinds))


def is_damaged(path: Path) -> bool:
    """Whether the files of a checkpoint are not those that were written.

    One of which that is not known was written by a process that was killed before it had
    added up the files; Orbax had ended by then.
    """
    try:
        known = read_json(path.parents[1] / "checkpoints.json")[path.name]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return known != checksums(path)


def checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of every file in a folder."""
    return {
        str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reason(error: Exception) -> str | None:
    """Of a TensorStore error, what the operating system said, if it was that.

    >>> reason(ValueError("Error writing local file [os_error_code='2'] [more]"))
    'No such file or directory'
    >>> reason(ValueError("Shapes differ"))
    """
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None
