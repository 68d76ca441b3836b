"""Compares what is done to conv kernels, side by side, with paired seeds.

Without options it compares a few methods, of fixed strengths, on scikit-learn's
handwritten digits, which need no download: two to four minutes on 2 CPU cores, 98 to
99 % of the test images right. It prints a table, and keeps it in a run folder, along with
the results of every seed, plots, and the first seed's kernels. The same on photographs,
of CIFAR-10 prepared for tensorflow-datasets in TFDS_DATA_DIR:

    python -m experiments.compare --dataset cifar10 --train-size 10000

With --settings it tunes each method with equal effort on held-out images, trains it
again from other seeds and scores it on the test images, beside its controls. What is done
is kept in experiments/results; --minutes 0 trains nothing and makes its page and plots
again.

    python -m experiments.compare --settings batch-norm --minutes 60
"""

import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments import command_line, run_folder
from experiments.compare import page, plots, table
from experiments.compare.config import Config
from experiments.compare.plan import next_trial, reported, strengths, trials_of
from experiments.compare.results import Results
from experiments.compare.settings import ALL, SETTINGS, Setting
from experiments.compare.statistics import findings
from experiments.compare.trial import Trainer
from experiments.data.open import open_source
from experiments.data.source import Source
from experiments.fit.build import build_feed
from experiments.fit.feeds import Feed
from experiments.interval import mean
from experiments.interventions import INTERVENTIONS
from experiments.progress import stderr, tracked
from experiments.run_folder import plain, replacing, write_csv, writing
from experiments.table import WIDEST

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
    source = open_dataset(setting, config)
    trainer = Trainer(setting, partial(open_feed, source, setting, console))
    for warning in config.warnings():
        console.print(
            f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True
        )
    trial = trials_of(config.chosen[0], setting, {}, {})[0]
    trainer.engine(trial, setting.seeds_of(*trial[:2]))  # the model fits
    results = open_folder(config, source)
    try:
        train(trainer, setting, results, config.chosen, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the same command with --output {results.folder} goes on where it was"
        ) from None
    found = findings(results.outcomes, reported(setting))
    found = {name: found[name] for name in config.chosen}
    title = headline(config, trainer.feed(reported=True))

    def text(width: int) -> str:
        about = (textwrap.fill(x, width) for x in (title, table.LEGEND_OF_FIXED))
        return "\n".join([*about, "", table.table(found, width=width), ""])

    figures = plots.figures(found, setting)
    figures["kernels"] = plots.kernel_matrices(found, results.kernels)
    # Earlier versions kept no correlations, and of some networks no maps are seen.
    seen = {x: y for x, y in found.items() if plots.has_maps(results.kernels(x))}
    if seen:
        figures["maps"] = plots.map_matrices(seen, results.kernels)
    with writing(results.folder):
        with replacing(results.folder / "table.txt", "w") as file:
            file.write(text(WIDEST))
        write_csv(results.folder / "results.csv", *table.seed_rows(found))
        write_csv(results.folder / "curves.csv", *table.curve_rows(results.outcomes))
        plots.save(figures, results.folder, title)
    print(text(shutil.get_terminal_size((WIDEST, 0)).columns))
    print(f"{time.perf_counter() - clock:.0f} s; results and plots: {results.folder}")
    if not any(one.finished.any() for one in found.values()):
        raise ValueError(
            f"--learning-rate is {config.learning_rate:g}, at which all seeds of all "
            "methods diverged; expected less"
        )


def compare_tuned(config: Config, names: tuple[str, ...], console: Console) -> None:
    """Tuned strengths: the results are kept with the code."""
    started = time.monotonic()

    def late() -> bool:
        spent = time.monotonic() - started
        return config.minutes is not None and spent > 60 * config.minutes

    if ALL in names:  # that fit the device: a GPU is kept for those that need one
        on_gpu = jax.default_backend() != "cpu"
        names = tuple(
            name
            for name, setting in SETTINGS.items()
            if setting.usual and setting.needs_gpu == on_gpu
        )
    settings = config.tuned()
    for name in names:
        setting = settings[name]
        results = Results(config.results / name)
        like = Results(config.results / setting.like).outcomes if setting.like else {}
        known = strengths(like)
        methods = tuple(x for x in setting.methods if x in config.chosen)
        if late() or next_trial(setting, methods, results.outcomes, known) is None:
            continue
        source = open_dataset(setting, config)
        options, settled = plain(setting.options()), {"dataset": source.fingerprint()}
        run_folder.claim(results.folder, options, {}, "--results", settled=settled)
        trainer = Trainer(setting, partial(open_feed, source, setting, console))
        train(trainer, setting, results, methods, console, known, late)
    written = page.write_page(config.results, settings)
    print(f"results: {written}" if written else "nothing is scored on test images yet")


def open_dataset(setting: Setting, config: Config) -> Source:
    """The dataset of a setting, from where the options say that it is."""
    return open_source(
        setting.config.dataset, data_dir=config.data_dir, download=config.download
    )


def open_feed(
    source: Source, setting: Setting, console: Console, validation: float
) -> Feed:
    """The images, all of them on the device; a fraction is for validation."""
    options = replace(setting.config, validation=validation)
    return build_feed(options, source, tracked(console))


def open_folder(config: Config, source: Source) -> Results:
    """The run folder: a new one, or one to go on with."""
    started = time.strftime("%Y%m%d-%H%M%S")
    default = re.sub(r"[^\w.-]", "-", f"{config.dataset}-{config.model}-{started}")
    about = {
        "command": f"{COMMAND} {shlex.join(sys.argv[1:])}",
        "device": str(jax.devices()[0]),
        "versions": run_folder.versions(),
    }
    folder = config.output or run_folder.fresh(Path("runs", default))
    settled = {"dataset": source.fingerprint()}
    run_folder.claim(folder, plain(config.options()), about, settled=settled)
    return Results(folder)


def train(
    trainer: Trainer,
    setting: Setting,
    results: Results,
    methods: tuple[str, ...],
    console: Console,
    chosen: Mapping[str, float] | None = None,
    late: Callable[[], bool] = lambda: False,
) -> None:
    """Trains the trials that are missing, while it is not late, and keeps each."""
    with Progress(console=console) as progress:

        def show(epoch: int, accuracy: np.ndarray) -> None:
            figure = f"{text}: {mean(accuracy):.1f} %"
            progress.update(task, completed=epoch, description=figure)

        while not late() and (
            following := next_trial(setting, methods, results.outcomes, chosen)
        ):
            trial, seeds = following
            text = ", ".join(
                [
                    trial.method,
                    *([f"strength {trial.strength:g}"] if trial.strength else []),
                    f"learning rate {trial.learning_rate:g}",
                ]
            )
            task = progress.add_task(f"{text}: compiling", total=setting.config.epochs)
            outcome = trainer.run(trial, seeds, show)
            with writing(results.folder, "--output" if setting.fixed else "--results"):
                results.add(trial, outcome)
            progress.remove_task(task)
            scores = " ".join(f"{score:.2f}" for score in outcome.accuracy)
            progress.console.print(
                f"{text}: {trial.split} {scores} %", highlight=False, soft_wrap=True
            )


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


if __name__ == "__main__":
    code = command_line.run(main, Config, prog=COMMAND, description=DESCRIPTION)
    command_line.leave(code)
