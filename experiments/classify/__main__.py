"""Trains a small CNN with and without Convolutional Similarity, and compares.

Without options it compares all methods on scikit-learn's handwritten digits, which need
no download: a minute and a half on 2 CPU cores, 98 to 99 % of the test images right. With
CIFAR-10 prepared for tensorflow-datasets in TFDS_DATA_DIR,

    python -m experiments.classify --dataset cifar10 --train-size 10000

does the same on photographs. It prints a table, and keeps it in a run folder, along with
the results of every seed, plots, and the first seed's kernels. The paper is Belmekki et
al., arXiv 2411.03226.

The methods, which start from the same random weights and see the same images in the same
order:
"""

import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

import convsim_jax as cs
from experiments import command_line, run_folder
from experiments.classify import plots
from experiments.classify.config import Config
from experiments.classify.results import Result, RunFolder
from experiments.classify.summary import curve_rows, seed_rows, table
from experiments.classify.training import Trainer
from experiments.data.load import load
from experiments.data.open import open_source
from experiments.fit.feeds import Feed, Resident, fitting_model
from experiments.methods import METHODS
from experiments.options import PLACES
from experiments.progress import tracked
from experiments.run_folder import plain, replacing, write_csv

COMMAND = "python -m experiments.classify"
LEGEND = (
    "± is the 95 % interval over seeds (Student t), → leads from the start to the end of "
    "training; time is without compilation"
)
DESCRIPTION = (__doc__ or "") + "\n".join(
    f"* {name}: {method.summary}" for name, method in METHODS.items()
)
# Feature maps are compared on that many of the images that are scored, the first ones.
MEASURED_IMAGES = 256


def main(config: Config) -> None:
    """Trains what is not trained yet, prints the table, writes the run folder."""
    config.check()
    clock = time.perf_counter()
    console = Console(stderr=True)
    trainer = make_trainer(config, open_feed(config, console))
    folder = open_folder(config)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        total = config.epochs * len(config.methods)
        task = progress.add_task("training", total=total)
        for name in config.methods:
            if name in folder.results:
                progress.advance(task, config.epochs)
                continue
            progress.update(task, description=f"{name}: compiling")

            def show(accuracy: np.ndarray, name: str = name) -> None:
                text = f"{name}: {np.mean(accuracy):.1f} %"
                progress.update(task, advance=1, description=text)

            try:
                train(name, config, trainer, folder, show)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"the same command with --output {folder.path} goes on at {name}"
                ) from None
        progress.update(task, description="plots")
        results = {name: folder.results[name] for name in config.methods}
        text = f"{headline(config, trainer.feed)}\n{LEGEND}\n\n{table(results)}\n"
        with replacing(folder.path / "table.txt", "w") as file:
            file.write(text)
        write_csv(folder.path / "results.csv", *seed_rows(results))
        write_csv(folder.path / "curves.csv", *curve_rows(results))
        plots.draw(folder, results, headline(config, trainer.feed))
        progress.update(task, description="done")
    print(text)
    print(f"{time.perf_counter() - clock:.0f} s; results and plots: {folder.path}")


def open_feed(config: Config, console: Console) -> Feed:
    """The images, all of them on the device."""
    source = open_source(
        config.dataset, data_dir=config.data_dir, download=config.download
    )
    dataset = load(
        source,
        train_size=config.train_size,
        validation=config.validation,
        cache_dir=config.cache_dir,
        track=tracked(console),
    )
    return Resident(dataset, config.batch_size)


def make_trainer(config: Config, feed: Feed) -> Trainer:
    """The trainer, with options that fit the images."""
    options = (field.name for field in fields(Trainer) if hasattr(config, field.name))
    return Trainer(
        model=fitting_model(
            config.model,
            config.dataset,
            feed,
            width=config.width,
            activation=config.activation,
        ),
        feed=feed,
        scored="validation" if config.validation else "test",
        **{name: getattr(config, name) for name in options if name != "model"},
    )


def open_folder(config: Config) -> RunFolder:
    """The run folder: a new one, or one to go on with."""
    started = time.strftime("%Y%m%d-%H%M%S")
    default = re.sub(r"[^\w.-]", "-", f"{config.dataset}-{config.model}-{started}")
    options = plain(asdict(config))
    for name in PLACES:
        options.pop(name, None)
    about = {
        "command": f"{COMMAND} {shlex.join(sys.argv[1:])}",
        "device": str(jax.devices()[0]),
        "versions": run_folder.versions(),
    }
    return RunFolder(config.output or Path("runs", default), options, about)


def train(
    name: str,
    config: Config,
    trainer: Trainer,
    folder: RunFolder,
    on_epoch: Callable[[np.ndarray], None],
) -> None:
    """Trains all seeds of a method, measures them, and keeps what they came to."""
    method = METHODS[name]
    strength = method.strength
    if method.regularizer is not None and config.strength is not None:
        strength = config.strength
    training = trainer.run(method, strength, on_epoch)
    scored = next(trainer.feed.score(trainer.scored))
    images = np.asarray(scored.images)[np.asarray(scored.labels) >= 0][:MEASURED_IMAGES]
    measured, kernels = {}, {}
    for when in ("start", "end"):
        variables = getattr(training, when)
        engine = trainer.engine(method.regularizer)
        measured[when] = engine.layers(variables, images, config.pairs)
        first_seed = jax.tree.map(lambda leaf: leaf[0], variables["params"])
        for path, kernel in cs.conv_kernels(first_seed).items():
            kernels[f"{when}/{path}"] = np.asarray(kernel)
    result = Result(
        strength=strength,
        seconds=training.seconds,
        diverged_at=training.diverged_at,
        loss=training.loss,
        accuracy=training.accuracy,
        **measured,
    )
    folder.add(name, result, kernels)


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
