"""The run folder: what a run is of, and what each method came to.

`config.json` holds the options, the command, versions and the device; `results.json` the
`Result` of every finished method; `kernels/<method>.npz` the conv kernels of the first
seed before and after training, under names such as `start/Conv_0/kernel`. Every file is
replaced as a whole: a run that is interrupted loses the method that it is at, and no
more.
"""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from experiments.classify.measurement import Measurement


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
    start: Measurement
    end: Measurement

    @property
    def finished(self) -> np.ndarray:
        """Which seeds did not diverge."""
        return self.diverged_at == 0


class RunFolder:
    """A folder that results are kept in.

    Args:
        path: new, empty, or of an earlier run with the same options.
        options: all that the results depend on, as JSON has it.
        about: what else to note in `config.json`.

    Attributes:
        results: of the methods that are finished.

    Raises:
        ValueError: the folder holds results of other options, or anything else.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, options: dict[str, Any], about: dict[str, Any]):
        self.path = path
        self.results: dict[str, Result] = {}
        config, results = path / "config.json", path / "results.json"
        if config.exists():
            _check_same(options, _read_json(config), config)
            if results.exists():
                self.results = _read_results(results)
        elif path.is_dir() and any(path.iterdir()):
            raise ValueError(
                f"--output is {path}, which holds something other than a run; expected a "
                "new or empty folder, or that of an earlier run"
            )
        try:
            (path / "kernels").mkdir(parents=True, exist_ok=True)
            _write_json(config, {"options": options, **about})
        except OSError as error:
            raise OSError(
                f"--output is {path}, which cannot be written: {error}"
            ) from error

    def add(self, method: str, result: Result, kernels: Mapping[str, np.ndarray]) -> None:
        """Keeps what a finished method came to."""
        with replacing(self.path / "kernels" / f"{method}.npz", "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **kernels)
        self.results = {**self.results, method: result}
        _write_json(self.path / "results.json", _plain(self.results))

    def kernels(self, method: str) -> dict[str, np.ndarray]:
        """The kernels that `add` was given."""
        with np.load(self.path / "kernels" / f"{method}.npz") as file:
            return dict(file)

    def write_csv(
        self, name: str, header: Sequence[str], rows: Iterable[Sequence]
    ) -> None:
        """Writes a table; what is not finite is left empty."""
        with replacing(self.path / name, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(
                ["" if value is None else value for value in _plain(row)] for row in rows
            )


@contextmanager
def replacing(path: Path, mode: str) -> Iterator[IO]:
    """Opens a file to write; `path` is replaced when all of it is written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        encoding = None if "b" in mode else "utf-8"
        with temporary.open(mode, encoding=encoding) as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """`value` as JSON has it, with None for a number that is not finite."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, value: Any) -> None:
    with replacing(path, "w") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_results(path: Path) -> dict[str, Result]:
    def measurement(fields: dict[str, Any]) -> Measurement:
        return Measurement(**{k: np.array(v, np.float64) for k, v in fields.items()})

    try:
        return {
            method: Result(
                strength=fields["strength"],
                seconds=fields["seconds"],
                diverged_at=np.array(fields["diverged_at"]),
                loss=np.array(fields["loss"], np.float64),
                accuracy=np.array(fields["accuracy"], np.float64),
                start=measurement(fields["start"]),
                end=measurement(fields["end"]),
            )
            for method, fields in _read_json(path).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _check_same(options: dict[str, Any], config: Any, path: Path) -> None:
    earlier = config.get("options") if isinstance(config, dict) else None
    if not isinstance(earlier, dict):
        raise ValueError(f"{path} is damaged: it names no options")
    for name, value in options.items():
        if name not in earlier or value != earlier[name]:
            raise ValueError(
                f"--output holds results of other options: --{name.replace('_', '-')} is "
                f"{json.dumps(value)}, and was {json.dumps(earlier.get(name))} in {path}"
            )
