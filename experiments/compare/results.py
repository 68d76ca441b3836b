"""What trials came to, in CSV files that are small enough to be kept with the code.

Every comparison has a folder. `config.json` holds what its rows have in common,
`trials.csv` a row for each trial and seed; of trials that are reported, `epochs.csv` the
curves, `layers.csv` what was measured layer by layer, and `kernels/<method>.npz` of fixed
strengths the first seed's kernels. An interruption loses the trial that it is at, no
more. Columns that came later are empty in earlier rows.
"""

import csv
import fcntl
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from experiments import run_folder


class Trial(NamedTuple):
    """What is trained, from several seeds."""

    split: str  # that it is scored on: "validation", to choose strengths, or "test"
    method: str  # a name in INTERVENTIONS
    strength: float  # of what is tuned; where nothing is, of what is added in training
    learning_rate: float
    decay: float = 0.0  # of the conv kernels, besides, where a setting chooses it first


class Score(NamedTuple):
    """What one seed of a trial came to: a row of `trials.csv`."""

    seed: int
    accuracy: float  # % of the split's images, after the last epoch; NaN if it diverged
    diverged_at: int  # epoch, counted from 1; 0 if it did not
    seconds: float  # of all the seeds that were trained with it
    device: str
    versions: str
    # Of the test images, where it is reported: the expected calibration error, and the
    # accuracy under noise and under blur, the mean of three amounts.
    calibration: float = np.nan
    noise: float = np.nan
    blur: float = np.nan


class Epoch(NamedTuple):
    """A row of `epochs.csv`; the accuracy is of validation images, if there are any."""

    seed: int
    epoch: int
    loss: float
    accuracy: float


class Layer(NamedTuple):
    """A conv layer of one seed after an epoch, 0 before training: a row of `layers.csv`.

    As in `experiments.measurement.Layers`, but effective maps are a fraction of all.
    """

    seed: int
    epoch: int
    layer: str
    norm: float
    paper_loss: float
    scale_free_loss: float
    before: float
    after: float
    before_centered: float
    after_centered: float
    effective_before: float = np.nan
    effective_after: float = np.nan


class Outcome(NamedTuple):
    """The rows of one trial; its first seed's kernels, such as `end/Conv_0/kernel`."""

    scores: list[Score]
    epochs: list[Epoch]
    layers: list[Layer]
    kernels: dict[str, np.ndarray]

    @property
    def accuracy(self) -> np.ndarray:
        """Of each seed; NaN if it diverged."""
        return np.array([score.accuracy for score in self.scores])


FILES: dict[str, tuple[str, Any]] = {
    "trials": ("scores", Score),
    "epochs": ("epochs", Epoch),
    "layers": ("layers", Layer),
}
# Columns by the names that they had.
EARLIER = {"treatment": "method"}


class Results:
    """The outcomes of a comparison's trials that are done, in the order of their ends.

    Raises:
        ValueError: a file in the folder, which need not exist, is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.outcomes: dict[Trial, Outcome] = {}
        known: dict[Trial, set[int]] = {}
        for name, (field, kind) in FILES.items():
            for trial, row in read_rows(folder / f"{name}.csv", kind):
                if kind is Score:
                    self.outcomes.setdefault(trial, Outcome([], [], [], {}))
                if kind is Score or row.seed in known.get(trial, ()):
                    getattr(self.outcomes[trial], field).append(row)
            # Rows of other seeds were interrupted while they were kept.
            known = {x: {y.seed for y in o.scores} for x, o in self.outcomes.items()}

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps what seeds came to; the file that says that it is there is written last.

        What another program has kept there meanwhile stays, of the same seeds too.
        """
        with locked(self.folder):
            self.outcomes = Results(self.folder).outcomes
            earlier = self.outcomes.setdefault(trial, Outcome([], [], [], {}))
            there = {row.seed for row in earlier.scores}
            for field, _ in FILES.values():
                rows = getattr(outcome, field)
                getattr(earlier, field).extend(x for x in rows if x.seed not in there)
            self._write(trial, outcome)

    def _write(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.kernels:
            path = self._kernels(trial.method)
            path.parent.mkdir(exist_ok=True)
            with run_folder.replacing(path, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **outcome.kernels)
        for name, (field, kind) in reversed(FILES.items()):
            rows = [
                (*trial, *row)
                for trial, outcome in self.outcomes.items()
                for row in getattr(outcome, field)
            ]
            header = (*Trial._fields, *kind._fields)
            run_folder.write_csv(self.folder / f"{name}.csv", header, rows)

    def kernels(self, method: str) -> dict[str, np.ndarray]:
        """The kernels of a trial, as `add` was given them."""
        path = self._kernels(method)
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def _kernels(self, method: str) -> Path:
        return self.folder / "kernels" / f"{method}.npz"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """No other program is here at the same time."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def read_rows(path: Path, kind: Any) -> list[tuple[Trial, Any]]:
    """The trials and rows of a CSV file; none if it is not there."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, restkey="more", strict=True))
        lines = [{EARLIER.get(x, x): cell for x, cell in y.items()} for y in lines]
        if any("more" in line for line in lines):
            raise ValueError("a line has more cells than there are columns")
        return [(revived(Trial, line), revived(kind, line)) for line in lines]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def revived(kind: Any, cells: Mapping[str, str]) -> Any:
    """A named tuple, of what CSV has of it; an empty cell is NaN.

    >>> revived(Epoch, {"seed": "1", "epoch": "2", "loss": "", "accuracy": "50.5"})
    Epoch(seed=1, epoch=2, loss=nan, accuracy=50.5)
    """
    named = {}
    for name, of_kind in get_type_hints(kind).items():
        if name in cells or name not in kind._field_defaults:
            cell = cells[name]
            named[name] = of_kind("nan" if of_kind is float and cell == "" else cell)
    return kind(**named)
