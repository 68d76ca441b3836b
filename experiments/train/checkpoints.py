"""Checkpoints of a run: the last two that are whole, written by Orbax."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import chex
import jax
import orbax.checkpoint as ocp

from experiments.run_folder import writing

KEPT = 2  # the last, and one in case it is damaged


class Checkpoints:
    """The state of a run and how far it is, under a number that rises.

    Args:
        folder: the run's. Several processes must share it.
        warn: is told of checkpoints that are left out.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]):
        for logger in ("absl", "concurrent.futures"):  # what is wrong is raised too
            logging.getLogger(logger).setLevel(logging.CRITICAL)
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
        """Writes a checkpoint, whole or not at all; nothing if it is there already.

        Args:
            number: that of the last one or larger.
            state: arrays.
            progress: what JSON can hold.

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
            except (ValueError, RuntimeError) as error:  # TensorStore's, of a full disk
                raise OSError(reason(error)) from error

    def restore(self, like: chex.ArrayTree) -> tuple[chex.ArrayTree, Any] | None:
        """The state and the progress of the last checkpoint that is whole, if any.

        Args:
            like: a state of the same shapes and shardings.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(number, args=items)
                if restored.state is None or restored.progress is None:
                    raise ValueError("a part of it is missing")
            except Exception as error:  # whatever a damaged file leads to
                why = " ".join(str(error).split())[:200]
                self._warn(f"checkpoint {number} is damaged and left out: {why}")
                self._manager.delete(number)
            else:
                return restored.state, restored.progress
        return None

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()


def reason(error: Exception) -> str:
    """Of a TensorStore error, what the operating system said, if it was that.

    >>> reason(ValueError("Error writing local file [os_error_code='2'] [more]"))
    'No such file or directory'
    """
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else str(error).split(" [")[0]
