"""Compares what is done to conv kernels, side by side, with paired seeds.

Without options it compares a few interventions, of fixed strengths, on scikit-learn's
handwritten digits, which need no download: two minutes on 2 CPU cores, 98 to 99 % of the
test images right. With CIFAR-10 prepared for tensorflow-datasets in TFDS_DATA_DIR,

    python -m experiments.compare --dataset cifar10 --train-size 10000

does the same on photographs. It prints a table, and keeps it in a run folder, along with
the results of every seed, plots, and the first seed's kernels. With --settings,

    python -m experiments.compare --settings batch-norm --minutes 60

tunes each intervention with equal effort on held-out images, trains it again from other
seeds and scores it on the test images, beside its controls. What is done is kept in
experiments/results; --minutes 0 trains nothing and makes its page and plots again.
"""

import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from experiments import command_line, run_folder
from experiments.compare import page, plots, table
from experiments.compare.config import Config
from experiments.compare.plan import next_trial, reported, strengths, trials_of
from experiments.compare.results import Results
from experiments.compare.settings import ALL, SETTINGS, Setting
from experiments.compare.statistics import Findings, findings
from experiments.compare.trial import Trainer
from experiments.data.open import open_source
from experiments.fit.build import build_feed
from experiments.fit.feeds import Feed
from experiments.interval import mean
from experiments.interventions import INTERVENTIONS
from experiments.progress import stderr, tracked
from experiments.run_folder import plain, replacing, write_csv, writing

COMMAND = "python -m experiments.compare"
DESCRIPTION = (
    (__doc__ or "")
    + "\nMethods, which start from the same random weights and see the same images in "
    + "the same order:\n"
    + "\n".join(f"* {name}: {one.summary}" for name, one in INTERVENTIONS.items())
    + "\n\nSettings:\n"
    + "\n".join(f"* {name}: {setting.summary}" for name, setting in SETTINGS.items())
)


def main(config: Config) -> None:
    """Trains what is not trained yet, and makes tables and plots of all that is."""
    config.check()
    console = stderr()
    if config.settings is None:
        compare_fixed(config, console)
    else:
        compare_tuned(config, config.settings, console)


def compare_fixed(config: Config, console: Console) -> None:
    """Fixed strengths: the results go to a run folder."""
    clock = time.perf_counter()
    setting = config.setting()
    trainer = Trainer(setting, partial(open_feed, setting, config, console))
    for text in config.warnings():
        console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)
    trainer.engine(trials_of(config.chosen[0], setting, {}, {})[0])  # the model fits
    results = open_folder(config)
    try:
        train(trainer, setting, results, config.chosen, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the same command with --output {results.folder} goes on where it was"
        ) from None
    found = findings(results.outcomes, reported(setting))
    found = {name: found[name] for name in config.chosen}
    title = headline(config, trainer.feed(reported=True))
    text = f"{title}\n{table.LEGEND}\n\n{table.table(found)}\n"
    figures = plots.figures(found, setting) | {
        "similarity_matrix": plots.similarity_matrices(found, results.kernels)
    }
    with writing(results.folder):
        with replacing(results.folder / "table.txt", "w") as file:
            file.write(text)
        write_csv(results.folder / "results.csv", *table.seed_rows(found))
        write_csv(results.folder / "curves.csv", *table.curve_rows(results.outcomes))
        plots.save(figures, results.folder, title)
    print(text)
    print(f"{time.perf_counter() - clock:.0f} s; results and plots: {results.folder}")
    check_finished(found)


def compare_tuned(config: Config, names: tuple[str, ...], console: Console) -> None:
    """Tuned strengths: the results are kept with the code."""
    started = time.monotonic()
    chosen = fitting() if ALL in names else list(names)
    for name in chosen:
        setting = SETTINGS[name]
        results = Results(config.results / name)
        like = Results(config.results / setting.like) if setting.like else None
        known = strengths(like.outcomes) if like else {}
        methods = [method for method in setting.methods if method in config.chosen]

        def late() -> bool:
            spent = time.monotonic() - started
            return config.minutes is not None and spent > 60 * config.minutes

        if late() or next_trial(setting, methods, results.outcomes, known) is None:
            continue
        run_folder.claim(results.folder, plain(setting.options()), {}, "--results")
        trainer = Trainer(setting, partial(open_feed, setting, config, console))
        train(trainer, setting, results, methods, console, known, late)
    written = page.write_page(config.results)
    print(f"results: {written}" if written else "nothing is scored on test images yet")


def fitting() -> list[str]:
    """Settings for this device: a GPU is kept for those that need one."""
    on_gpu = jax.default_backend() != "cpu"
    return [name for name, setting in SETTINGS.items() if setting.needs_gpu == on_gpu]


def open_feed(
    setting: Setting, config: Config, console: Console, validation: float
) -> Feed:
    """The images, all of them on the device; a fraction is for validation."""
    places = {x: getattr(config, x) for x in ("data_dir", "cache_dir", "download")}
    options = replace(setting.config, validation=validation, **places)
    source = open_source(
        options.dataset, data_dir=options.data_dir, download=options.download
    )
    return build_feed(options, source, tracked(console))


def open_folder(config: Config) -> Results:
    """The run folder: a new one, or one to go on with."""
    started = time.strftime("%Y%m%d-%H%M%S")
    default = re.sub(r"[^\w.-]", "-", f"{config.dataset}-{config.model}-{started}")
    about = {
        "command": f"{COMMAND} {shlex.join(sys.argv[1:])}",
        "device": str(jax.devices()[0]),
        "versions": run_folder.versions(),
    }
    folder = config.output or run_folder.fresh(Path("runs", default))
    run_folder.claim(folder, plain(config.options()), about)
    return Results(folder)


def train(
    trainer: Trainer,
    setting: Setting,
    results: Results,
    methods: tuple[str, ...] | list[str],
    console: Console,
    chosen: Mapping[str, float] | None = None,
    late: Callable[[], bool] = lambda: False,
) -> None:
    """Trains the trials that are missing, while there is time, and keeps each.

    Args:
        trainer: of the setting.
        setting: see there.
        results: that are there.
        methods: interventions to train.
        console: shows how far it is.
        chosen: strengths of another setting, if this one takes them from there.
        late: whether no trial is to be begun any more.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        while not late() and (
            trial := next_trial(setting, methods, results.outcomes, chosen)
        ):
            text = f"{trial.treatment} {trial.strength:g} at {trial.learning_rate:g}"
            task = progress.add_task(f"{text}: compiling", total=setting.config.epochs)

            outcome = trainer.run(trial, partial(show, progress, task, text))
            with writing(results.folder, "--output" if setting.fixed else "--results"):
                results.add(trial, outcome)
            progress.remove_task(task)
            scores = " ".join(f"{score:.2f}" for score in outcome.accuracy)
            progress.console.print(
                f"{text}: {trial.split} {scores} %", highlight=False, soft_wrap=True
            )


def show(
    progress: Progress, task: TaskID, text: str, epoch: int, accuracy: np.ndarray
) -> None:
    """Shows how far a trial is."""
    description = f"{text}: {mean(accuracy):.1f} %"
    progress.update(task, completed=epoch, description=description)


def headline(config: Config, feed: Feed) -> str:
    """What the table is of."""
    scored = "validation" if config.validation else "test"
    what = "held-out training" if config.validation else "test"
    return (
        f"{config.dataset}: {feed.sizes['train']} training and {feed.sizes[scored]} "
        f"{what} images of {'x'.join(map(str, feed.shape))}, {feed.classes} classes; "
        f"{config.model}, {config.activation}; {config.seeds} seeds of {config.epochs} "
        "epochs"
    )


def check_finished(found: Findings) -> None:
    """Raises a ValueError if every seed of every intervention diverged."""
    if not any(finding.finished.any() for finding in found.values()):
        rate = next(iter(found.values())).trial.learning_rate
        raise ValueError(
            f"--learning-rate is {rate:g}, at which all seeds of all methods diverged; "
            "expected less"
        )


if __name__ == "__main__":
    code = command_line.run(main, Config, prog=COMMAND, description=DESCRIPTION)
    command_line.leave(code)
