"""A run folder, read again: what `experiments.train` has written into it so far."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from experiments.record import Epoch, Outcome, instance_of, revived
from experiments.run_folder import read_json

Read = TypeVar("Read")


class Run(NamedTuple):
    """A run: done, or as far as it has come.

    Attributes:
        folder: the run folder.
        config: the options, and how and where they were run.
        history: the epochs that are done.
        outcome: what the run came to; None while it is going.
        kernels: of the first seed, such as `start/Conv_0/kernel`; none while it is going.
    """

    folder: Path
    config: dict[str, Any]
    history: list[Epoch]
    outcome: Outcome | None
    kernels: dict[str, np.ndarray]

    @property
    def finished(self) -> np.ndarray:
        """Which seeds have not diverged, `(seeds,)`."""
        if self.outcome is not None:
            return self.outcome.diverged_at == 0
        if not self.history:
            return np.zeros(0, bool)
        last = self.history[-1]
        return np.isfinite(last.loss) | (last.epoch == 0)


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged.
        OSError: a file cannot be read.
    """
    config = folder / "config.json"
    if not config.exists():
        raise ValueError(f"{folder} holds no config.json; expected a run folder")
    outcome = read_outcome(folder)
    return Run(
        folder,
        _read(config, read_json, _config),
        read_history(folder),
        outcome,
        {} if outcome is None else read_kernels(folder),
    )


def read_history(folder: Path) -> list[Epoch]:
    """The epochs of `history.json`; none if it is not there yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "history.json"
    return _read(path, read_json, _history) if path.exists() else []


def read_outcome(folder: Path) -> Outcome | None:
    """What `results.json` holds; None if it is not there yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "results.json"
    return _read(path, read_json, _outcome) if path.exists() else None


def read_kernels(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `kernels.npz`; none if it is not there yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "kernels.npz"
    return _read(path, _load, dict) if path.exists() else {}


def _read(path: Path, load: Callable[[Path], Any], parse: Callable[[Any], Read]) -> Read:
    """What a file holds, or which file it is that is damaged."""
    content = load(path)
    try:
        return parse(content)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _config(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get("options"), dict):
        raise ValueError("it names no options")
    return content


def _history(content: Any) -> list[Epoch]:
    history = [revived(Epoch, fields) for fields in instance_of(list, content)]
    shapes = {shape for epoch in history for shape in _shapes(epoch)}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError("its epochs are not of the same seeds")
    return history


def _outcome(content: Any) -> Outcome:
    outcome = revived(Outcome, content)
    shapes = _shapes(outcome)
    for layers in (outcome.start, outcome.end):
        shapes |= {
            shape[:-1] if shape[-1:] == (len(layers.names),) else shape
            for shape in _shapes(layers)
        }
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError("its results are not of the same seeds and layers")
    return outcome


def _shapes(of: tuple) -> set[tuple[int, ...]]:
    return {array.shape for array in of if isinstance(array, np.ndarray)}
