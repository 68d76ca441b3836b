"""What a run leaves behind, written and read again.

In the run folder, `config.json` says what was run, `history.json` is the list of
`Epoch`s, `results.json` the `Outcome`, `kernels.npz` the first seed's kernels before and
after training. Arrays are numpy float64; a number that is not finite is null in JSON.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import numpy as np

from experiments.measurement import Layers
from experiments.run_folder import read_json, replacing

Read = TypeVar("Read")


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
    config = _read(folder / "config.json", lambda content: {**content})
    if config is None:
        raise ValueError(f"{folder} holds no config.json; expected a run folder")
    if not isinstance(config.get("options"), dict):
        raise ValueError(f"{folder / 'config.json'} is damaged: it names no options")
    history = _read(
        folder / "history.json", lambda content: [revived(Epoch, x) for x in content]
    )
    return Run(folder, config, history or [], read_outcome(folder))


def read_outcome(folder: Path) -> Outcome | None:
    """What `results.json` holds; None if it is not there yet."""
    return _read(folder / "results.json", lambda content: revived(Outcome, content))


def read_kernels(folder: Path) -> dict[str, np.ndarray] | None:
    """What `kernels.npz` holds, such as `start/Conv_0/kernel`; None if it is damaged.

    Also None if it is not there: either way it can be made again.
    """
    try:
        with (folder / "kernels.npz").open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except Exception:  # NumPy and zipfile have many
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


def revived(kind: Any, content: Mapping[str, Any]) -> Any:
    """A named tuple, of what JSON has of it; fields with a default may be missing."""
    kinds = get_type_hints(kind)
    needed = kinds.keys() - kind._field_defaults.keys()
    if odd := (needed - content.keys()) | (content.keys() - kinds.keys()):
        named = ", ".join(sorted(odd))
        raise ValueError(f"its fields are not those of {kind.__name__}: {named}")
    return kind(**{name: _value(kinds[name], x) for name, x in content.items()})


def _value(kind: Any, content: Any) -> Any:
    if kind is float:
        return math.nan if content is None else float(content)
    if kind is Layers:
        return revived(Layers, content)
    arrays = kind in (np.ndarray, np.ndarray | None) and content is not None
    return np.array(content, np.float64) if arrays else content  # null is NaN


def _read(path: Path, parse: Callable[[Any], Read]) -> Read | None:
    """What a file holds, None if it is not there, or that it is damaged."""
    if not path.exists():
        return None
    content = read_json(path)
    try:
        return parse(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
