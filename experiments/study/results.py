"""Results of the study: CSV files that are small enough to be kept with the code.

Each setting has a folder. `config.json` holds what its rows have in common, `trials.csv`
a row for each trial and seed. Of the trials that were scored on the test images,
`epochs.csv` holds the curves and `layers.csv` what was measured layer by layer.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from experiments import run_folder


class Trial(NamedTuple):
    """What is trained, from several seeds.

    Attributes:
        split: that it is scored on: `"validation"`, to choose strengths, or `"test"`.
        treatment: a name in `TREATMENTS`.
        strength: of the treatment.
        learning_rate: at the start.
    """

    split: str
    treatment: str
    strength: float
    learning_rate: float


class Score(NamedTuple):
    """What one seed of a trial came to: a row of `trials.csv`.

    Attributes:
        seed: of the random weights and the order of images.
        accuracy: percentage of the split's images right after the last epoch; NaN if
            the training diverged.
        diverged_at: epoch, counted from 1; 0 if it did not.
        seconds: that the trial took, all of its seeds.
        device: that it was trained on.
        versions: of the libraries.
    """

    seed: int
    accuracy: float
    diverged_at: int
    seconds: float
    device: str
    versions: str


class Epoch(NamedTuple):
    """A row of `epochs.csv`; the accuracy is of the validation images."""

    seed: int
    epoch: int
    loss: float
    accuracy: float


class Layer(NamedTuple):
    """A conv layer of one seed after an epoch, 0 before training: a row of `layers.csv`.

    The others are as in `experiments.measurement.Layers`.
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


class Outcome(NamedTuple):
    """The rows of one trial."""

    scores: list[Score]
    epochs: list[Epoch]
    layers: list[Layer]


FILES: dict[str, Any] = {"trials": Score, "epochs": Epoch, "layers": Layer}


class Results:
    """The outcomes of a setting's trials that are done.

    Args:
        folder: the setting's; it need not exist.

    Attributes:
        outcomes: by trial, in the order in which they were added.

    Raises:
        ValueError: a file is damaged.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.outcomes: dict[Trial, Outcome] = {}
        for number, (name, kind) in enumerate(FILES.items()):
            for trial, row in read_rows(folder / f"{name}.csv", kind):
                if kind is Score:
                    self.outcomes.setdefault(trial, Outcome([], [], []))
                if trial in self.outcomes:  # or it was interrupted while it was kept
                    self.outcomes[trial][number].append(row)

    def claim(self, options: Any) -> None:
        """Makes the folder that of a setting; see `run_folder.claim`."""
        run_folder.claim(self._folder, run_folder.plain(options), {}, "--results")

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps an outcome; the file that says that it is there is written last."""
        self.outcomes[trial] = outcome
        for number, (name, kind) in reversed(list(enumerate(FILES.items()))):
            rows = [
                (*trial, *row)
                for trial, outcome in self.outcomes.items()
                for row in outcome[number]
            ]
            header = (*Trial._fields, *kind._fields)
            run_folder.write_csv(self._folder / f"{name}.csv", header, rows)


def read_rows(path: Path, kind: Any) -> list[tuple[Trial, Any]]:
    """The trials and rows of a CSV file; none if it is not there.

    Raises:
        ValueError: it holds something else.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        size = len(Trial._fields)
        if lines[0] != [*Trial._fields, *kind._fields]:
            raise ValueError(f"its columns are {', '.join(lines[0])}")
        return [
            (revived(Trial, line[:size]), revived(kind, line[size:]))
            for line in lines[1:]
        ]
    except (IndexError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def revived(kind: Any, cells: Sequence[str]) -> Any:
    """A named tuple, of what CSV has of it; an empty cell is NaN.

    >>> revived(Epoch, ["1", "2", "", "50.5"])
    Epoch(seed=1, epoch=2, loss=nan, accuracy=50.5)
    """
    kinds = get_type_hints(kind)
    return kind(
        **{
            name: kinds[name]("nan" if kinds[name] is float and not cell else cell)
            for name, cell in zip(kind._fields, cells, strict=True)
        }
    )
