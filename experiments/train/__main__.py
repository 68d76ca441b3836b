"""Trains a network, or one a seed, as a configuration says.

Without options it trains the small CNN on scikit-learn's handwritten digits, which need
no download. --config takes the options of a file in experiments/configs, or of an earlier
run; any of them can be changed. It prints a table, and keeps in a run folder what the run
came to, its curves, TensorBoard scalars and a page for a browser, report.html. A run that
was stopped, at whatever moment, goes on from its last checkpoint if the same command is
given again with --output.
"""

import re
import shlex
import sys
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from experiments import command_line, run_folder
from experiments.configs import configuration, given, names
from experiments.data.load import load, select
from experiments.data.open import open_source
from experiments.fit import devices
from experiments.fit.build import build_engine
from experiments.fit.feeds import Feed, Resident, Streamed
from experiments.interval import interval
from experiments.interventions import INTERVENTIONS, intervention
from experiments.options import Config
from experiments.progress import display, stderr, tracked
from experiments.record import Outcome, read_outcome
from experiments.report import write_report
from experiments.report.wording import duration
from experiments.table import aligned
from experiments.train.run import Run

COMMAND = "python -m experiments.train"
# Of these too a run notes the versions, where they are installed.
PACKAGES = ("jaxlib", "numpy", "orbax-checkpoint", "grain", "tensorflow-datasets")
DESCRIPTION = (
    (__doc__ or "")
    + f"\nConfigurations: {', '.join(names())}.\n\nMethods:\n"
    + "\n".join(f"* {name}: {method.summary}" for name, method in INTERVENTIONS.items())
)


def main(config: Config) -> None:
    """Trains what is not trained yet, prints the table, writes the run folder."""
    config.check()
    clock = time.perf_counter()
    if config.distributed:
        devices.join()
    console = stderr(quiet=jax.process_index() > 0)
    with devices.together():
        feed = open_feed(config, console)
        engine = build_engine(
            config, intervention(config.method), feed, seeds=config.seeds
        )
        folder = open_folder(config, feed)
    with devices.together():
        devices.check_shared(folder)
        outcome = read_outcome(folder)
    if outcome is None:
        with display(console, config.epochs, feed.steps) as shown:
            for text in config.warnings():
                shown.warn(text)
            outcome = Run(config, engine, feed, folder, shown)()
    if jax.process_index() == 0:
        report = write_report(folder)
        print(f"{headline(config, feed)}\n\n{table(outcome)}\n")
        print(
            f"{duration(outcome.seconds)} of training; this command took "
            f"{duration(time.perf_counter() - clock)}; report: {report}"
        )


def open_feed(config: Config, console: Console) -> Feed:
    """The images."""
    source = open_source(
        config.dataset, data_dir=config.data_dir, download=config.download
    )
    selection = select(source, train_size=config.train_size, validation=config.validation)
    if config.image_size is None and None in source.shape:
        raise ValueError(
            f"--dataset {config.dataset} has images of several sizes; expected a size to "
            "cut them to, --image-size"
        )
    if config.image_size is not None:
        return Streamed(
            source,
            selection,
            config.batch_size,
            config.image_size,
            config.workers,
            config.augment,
        )

    dataset = load(
        source,
        train_size=config.train_size,
        validation=config.validation,
        cache_dir=config.cache_dir,
        track=tracked(console),
    )
    return Resident(dataset, config.batch_size)


def open_folder(config: Config, feed: Feed) -> Path:
    """The run folder: a new one, or one to go on with."""
    started = time.strftime("%Y%m%d-%H%M%S")
    name = Path(config.config).name
    default = re.sub(r"[^\w.-]", "-", f"{name}-{config.method}-{started}")
    folder = config.output or Path("runs", default)
    about = {
        "command": f"{COMMAND} {shlex.join(sys.argv[1:])}",
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": run_folder.versions(*PACKAGES),
        "images_normalised_by": {
            name: [float(f"{value:.7g}") for value in getattr(feed, name)]
            for name in ("mean", "deviation")
        },
    }
    if jax.process_index() == 0:
        run_folder.claim(folder, run_folder.plain(config.options()), about)
    return folder


def headline(config: Config, feed: Feed) -> str:
    """What the table is of."""
    sizes = feed.sizes
    return (
        f"{config.dataset}: {sizes['train']} training, {sizes['validation']} validation "
        f"and {sizes['test']} test images of {'x'.join(map(str, feed.shape))}; "
        f"{config.model}, {config.activation}; {config.method}; {config.epochs} epochs"
    )


def table(outcome: Outcome) -> str:
    """A row a seed, and the mean with its 95 % interval."""
    header = ["seed", "test accuracy %", "epoch", "similarity", "norm"]
    rows = []
    for seed, accuracy in enumerate(outcome.accuracy):
        gone = int(outcome.diverged_at[seed])
        start, end = (
            (layers.before[seed].mean(), np.sqrt((layers.norm[seed] ** 2).sum()))
            for layers in (outcome.start, outcome.end)
        )
        rows.append(
            [
                str(seed),
                f"diverged in epoch {gone}" if gone else f"{accuracy:.2f}",
                f"{outcome.chosen_epoch[seed]:.0f}",
                f"{start[0]:.3f} → {end[0]:.3f}",
                f"{start[1]:.3g} → {end[1]:.3g}",
            ]
        )
    finished = outcome.accuracy[outcome.diverged_at == 0]
    if len(finished) > 1:
        mean, reach = interval(finished)
        rows.append(["mean", f"{mean:.2f} ± {reach:.2f}", "", "", ""])
    return aligned(header, rows)


if __name__ == "__main__":
    code = command_line.run(
        main,
        Config,
        prog=COMMAND,
        description=DESCRIPTION,
        defaults=lambda argv: configuration(given(argv)),
    )
    command_line.leave(code)
