"""What each method came to, kept in the run folder.

`config.json` holds the options, the command, versions and the device; `results.json` the
`Result` of every finished method; `kernels/<method>.npz` the conv kernels of the first
seed before and after training, under names such as `start/Conv_0/kernel`. A run that is
interrupted loses the method that it is at, and no more.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import run_folder
from experiments.measurement import Layers
from experiments.record import revived


class Result(NamedTuple):
    """What a method came to, the seeds along the first axis of each array.

    Attributes:
        strength: factor of the regularizer.
        seconds: time to initialise and train all seeds, compilation left out.
        diverged_at: epoch, counted from 1, in which a seed diverged; 0 if it did not.
        loss: mean cross-entropy of each epoch's training batches, `(seeds, epochs)`.
        accuracy: test accuracy in % after each epoch, `(seeds, epochs)`.
        start: measured before training, after the initialization.
        end: measured after training.
    """

    strength: float
    seconds: float
    diverged_at: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    start: Layers
    end: Layers

    @property
    def finished(self) -> np.ndarray:
        """Which seeds did not diverge."""
        return self.diverged_at == 0


class RunFolder:
    """A run folder that results are kept in, and read again.

    Args:
        path: new, empty, or of an earlier run with the same options.
        options: all that the results depend on, as JSON has it.
        about: what else to note in `config.json`.

    Attributes:
        results: of the methods that are finished.

    Raises:
        ValueError: the folder holds results of other options, or anything else, or a
            file in it is damaged.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], about: Mapping[str, Any]):
        run_folder.claim(path, options, about)
        self.path = path
        results = path / "results.json"
        self.results = _read_results(results) if results.exists() else {}

    def add(self, method: str, result: Result, kernels: Mapping[str, np.ndarray]) -> None:
        """Keeps what a finished method came to."""
        path = self._kernels(method)
        path.parent.mkdir(exist_ok=True)
        with run_folder.replacing(path, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **kernels)
        self.results = {**self.results, method: result}
        run_folder.write_json(self.path / "results.json", self.results)

    def kernels(self, method: str) -> dict[str, np.ndarray]:
        """The kernels that `add` was given."""
        path = self._kernels(method)
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def _kernels(self, method: str) -> Path:
        return self.path / "kernels" / f"{method}.npz"


def _read_results(path: Path) -> dict[str, Result]:
    try:
        return {
            method: revived(Result, fields)
            for method, fields in run_folder.read_json(path).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
