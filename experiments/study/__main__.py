"""Whether Convolutional Similarity helps: trains what is missing, and says what is known.

Every treatment of the conv kernels is tuned with equal effort on held-out images, trained
again from other seeds and scored on the test images, beside its controls. A trial that is
done is kept, and not done again. With --minutes 0 nothing is trained; the results page
and its plots are made of whatever is there.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from experiments import command_line
from experiments.command_line import check_least, unset
from experiments.data.load import load
from experiments.data.open import open_source
from experiments.fit.feeds import Resident
from experiments.options import CacheDir, DataDir
from experiments.progress import tracked
from experiments.run_folder import writing
from experiments.study.page import write_page
from experiments.study.plan import next_trial, strengths
from experiments.study.results import Results, Trial
from experiments.study.settings import SETTINGS, Setting
from experiments.study.training import Trainer
from experiments.study.treatments import TREATMENTS

COMMAND = "python -m experiments.study"
DESCRIPTION = (
    (__doc__ or "")
    + "\nSettings:\n"
    + "\n".join(f"* {name}: {setting.summary}" for name, setting in SETTINGS.items())
)
RESULTS = Path("experiments", "results")


@dataclass(frozen=True)
class Config:
    """What to train, and where the results are.

    Attributes:
        settings: Settings to train in, one after another; by default those that fit the
            device.
        treatments: Treatments to train; by default all of the setting.
        minutes: Time after which no trial is begun.
        results: Folder of the results; the page is written beside it.
        data_dir: Folder of prepared TFDS datasets.
        cache_dir: Folder of decoded images.
        download: Let TFDS download and prepare a dataset if it is not there, for which
            it needs TensorFlow.
    """

    settings: Annotated[tuple[str, ...], unset("SETTING ...", "what fits")] = ()
    treatments: Annotated[tuple[str, ...], unset("TREATMENT ...", "all")] = ()
    minutes: Annotated[float | None, unset("FLOAT", "no end")] = None
    results: Path = RESULTS
    data_dir: DataDir = None
    cache_dir: CacheDir = None
    download: bool = False

    def check(self) -> None:
        """Raises a ValueError that names the first option out of range."""
        for name, known in (("settings", SETTINGS), ("treatments", TREATMENTS)):
            unknown = [each for each in getattr(self, name) if each not in known]
            if unknown:
                raise ValueError(
                    f"--{name} is {unknown[0]!r}; expected {', '.join(known)}"
                )
        check_least(self, minutes=0)


def main(config: Config) -> None:
    """Trains what is missing, and writes the page."""
    config.check()
    started = time.monotonic()
    console = Console(stderr=True)
    for name in config.settings or fitting():
        study(name, SETTINGS[name], config, started, console)
    page = write_page(config.results)
    print(f"page: {page}" if page else "nothing was scored on test images yet")


def fitting() -> list[str]:
    """Settings for this device: a GPU is kept for those that need one."""
    on_gpu = jax.default_backend() != "cpu"
    return [name for name, setting in SETTINGS.items() if setting.needs_gpu == on_gpu]


def study(
    name: str, setting: Setting, config: Config, started: float, console: Console
) -> None:
    """Trains the trials of a setting that are missing, while there is time."""
    results = Results(config.results / name)
    elsewhere = Results(config.results / setting.like) if setting.like else None
    if config.treatments:
        chosen = tuple(t for t in setting.treatments if t in config.treatments)
    else:
        chosen = setting.treatments

    def next_one() -> Trial | None:
        late = config.minutes is not None and (
            time.monotonic() - started > 60 * config.minutes
        )
        known = {} if elsewhere is None else strengths(elsewhere.outcomes)
        return None if late else next_trial(setting, chosen, results.outcomes, known)

    trial = next_one()
    if trial is None:
        return
    results.claim(setting.options())
    source = open_source(
        setting.config.dataset, data_dir=config.data_dir, download=config.download
    )
    dataset = load(
        source,
        train_size=setting.config.train_size,
        validation=setting.config.validation,
        cache_dir=config.cache_dir,
        track=tracked(console),
    )
    trainer = Trainer(setting, Resident(dataset, setting.config.batch_size))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        while trial is not None:
            text = (
                f"{name}: {trial.treatment} {trial.strength:g} at {trial.learning_rate:g}"
            )
            task = progress.add_task(text, total=setting.config.epochs)
            outcome = trainer.run(trial, partial(set_completed, progress, task))
            with writing(config.results, "--results"):
                results.add(trial, outcome)
            progress.remove_task(task)
            scores = " ".join(f"{score.accuracy:.2f}" for score in outcome.scores)
            progress.console.print(
                f"{text}: {trial.split} {scores} %", highlight=False, soft_wrap=True
            )
            trial = next_one()


def set_completed(progress: Progress, task: TaskID, epochs: int) -> None:
    """Shows how many epochs are done."""
    progress.update(task, completed=epochs)


if __name__ == "__main__":
    code = command_line.run(main, Config, prog=COMMAND, description=DESCRIPTION)
    command_line.leave(code)
