"""What a run leaves behind, written and read again.

In the run folder, `config.json` says what was run, `history.json` is the list of
`Epoch`s, `results.json` the `Outcome`, `kernels.npz` the first seed's kernels before and
after training. Arrays are numpy float64; a number that is not finite is null in JSON.
"""

import types
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from experiments.measurement import Layers
from experiments.run_folder import read_json, replacing

Read = TypeVar("Read")
# What NumPy and zipfile raise of an archive that is damaged.
UNREADABLE = (
    *(ValueError, EOFError, AttributeError, KeyError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


class Epoch(NamedTuple):
    """One epoch; the seeds along the first axis of each array."""

    epoch: int  # counted from 1; 0 is the network before training
    seconds: float  # time it took, scoring and measuring left out
    images_per_second: float  # images trained on, of all seeds together, in a second
    learning_rate: float  # at its last step
    loss: np.ndarray  # mean training loss, `(seeds,)`
    # percentage of the training images right, as they were trained on
    train_accuracy: np.ndarray
    accuracy: np.ndarray  # percentage of the validation images right; NaN without any
    paper_loss: np.ndarray  # the paper's loss of the kernels, summed over layers
    scale_free_loss: np.ndarray  # the scale-free cross-channel loss, summed over layers
    norm: np.ndarray  # of all conv kernels together


class Outcome(NamedTuple):
    """What a run came to."""

    parameters: int  # number of parameters of the network
    scored: str  # name of the split that `accuracy` is of, `"test"`
    images: int  # number of images scored
    # percentage right, of the chosen network, `(seeds,)`; NaN of a seed that
    # diverged
    accuracy: np.ndarray
    # whose network was chosen, by the validation images; the last without any
    chosen_epoch: np.ndarray
    diverged_at: np.ndarray  # epoch in which a seed diverged; 0 if it did not
    seconds: float  # of all epochs
    start: Layers  # the conv layers before training, after the initialization
    end: Layers  # the conv layers of the chosen network

    @property
    def all_diverged(self) -> bool:
        """Whether no seed came to anything."""
        return bool((self.diverged_at > 0).all())


class Run(NamedTuple):
    """A run: done, or as far as it has come."""

    folder: Path  # the run folder
    config: dict[str, Any]  # the options, and how and where they were run
    history: list[Epoch]  # the epochs that are done
    outcome: Outcome | None  # what the run came to; None while it is going

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for."""
        return self.config["options"]

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
    """Reads a run folder."""
    config = _read(folder / "config.json", _config)
    if config is None:
        raise ValueError(f"{folder} holds no config.json; expected a run folder")
    return Run(folder, config, read_history(folder), read_outcome(folder))


def read_history(folder: Path) -> list[Epoch]:
    """The epochs of `history.json`; none if it is not there yet."""
    return _read(folder / "history.json", _history) or []


def read_outcome(folder: Path) -> Outcome | None:
    """What `results.json` holds; None if it is not there yet."""
    return _read(folder / "results.json", _outcome)


def read_kernels(folder: Path) -> dict[str, np.ndarray] | None:
    """What `kernels.npz` holds, such as `start/Conv_0/kernel`; None if it is damaged.

    Also None if it is not there: either way it can be made again.
    """
    try:
        with (folder / "kernels.npz").open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (FileNotFoundError, *UNREADABLE):
        return None


def write_kernels(folder: Path, **kernels: Mapping[str, Any]) -> None:
    """Writes `kernels.npz`: the first seed's kernels by path, `start` and `end`."""
    arrays = {
        f"{when}/{path}": np.asarray(kernel)
        for when, found in kernels.items()
        for path, kernel in found.items()
    }
    with replacing(folder / "kernels.npz", "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def revived(kind: type, content: Any) -> Any:
    """A named tuple, of what JSON has of it; fields with a default may be missing."""
    fields = instance_of(dict, content)
    kinds = get_type_hints(kind)
    needed = kinds.keys() - getattr(kind, "_field_defaults", {}).keys()
    if odd := (needed - fields.keys()) | (fields.keys() - kinds.keys()):
        named = ", ".join(sorted(odd))
        raise ValueError(f"its fields are not those of {kind.__name__}: {named}")
    return kind(**{name: _value(kinds[name], fields[name]) for name in fields})


def _value(kind: Any, content: Any) -> Any:
    if isinstance(kind, types.UnionType):  # with None
        if content is None:
            return None
        kind = get_args(kind)[0]
    if hasattr(kind, "_fields"):
        return revived(kind, content)
    if kind is np.ndarray:
        return np.array(content, np.float64)  # null is NaN
    if kind is float:
        return float(np.array(content, np.float64))
    return instance_of(get_origin(kind) or kind, content)


def instance_of(kind: type, content: Any) -> Any:
    """`content`, of that type; raises a ValueError otherwise."""
    if not isinstance(content, kind):
        raise ValueError(f"expected {kind.__name__}, found {type(content).__name__}")
    return content


def _read(path: Path, parse: Callable[[Any], Read]) -> Read | None:
    """What a file holds, None if it is not there, or that it is damaged."""
    if not path.exists():
        return None
    content = read_json(path)
    try:
        return parse(content)
    except (ValueError, TypeError, KeyError) as error:
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
        count = len(layers.names)
        shapes |= {
            shape[:-1] if shape[-1:] == (count,) else shape for shape in _shapes(layers)
        }
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise ValueError("its results are not of the same seeds and layers")
    return outcome


def _shapes(of: tuple) -> set[tuple[int, ...]]:
    return {array.shape for array in of if isinstance(array, np.ndarray)}
