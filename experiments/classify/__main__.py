"""Trains a small CNN with and without Convolutional Similarity, and compares.

Without options it compares all methods on scikit-learn's handwritten digits, which need
no download: about a minute on 2 CPU cores, 98 to 99 % of the test images right. With
CIFAR-10 prepared for tensorflow-datasets in TFDS_DATA_DIR,

    python -m experiments.classify --dataset cifar10 --train-size 10000

does the same on photographs. It prints a table, and keeps it in a run folder, along with
the results of every seed, plots, and the first seed's kernels. The paper is Belmekki et
al., arXiv 2411.03226.

The methods, which start from the same random weights and see the same images in the same
order:
"""

import json
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

import convsim_jax as cs
from experiments import command_line
from experiments.classify import data, plots
from experiments.classify.config import Config
from experiments.classify.results import Result, RunFolder
from experiments.classify.summary import curve_rows, seed_rows, table
from experiments.classify.training import Trainer
from experiments.measurement import Measurement, measure
from experiments.methods import METHODS
from experiments.models import MODELS
from experiments.run_folder import replacing, write_csv

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
    dataset = data.load(
        config.dataset,
        train_size=config.train_size,
        validation=config.validation,
        data_dir=config.data_dir,
        download=config.download,
        track=lambda starts, what: rich.progress.track(
            list(starts), description=what, console=console
        ),
    )
    trainer = make_trainer(config, dataset)
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
        text = f"{headline(config, dataset)}\n{LEGEND}\n\n{table(results)}\n"
        with replacing(folder.path / "table.txt", "w") as file:
            file.write(text)
        write_csv(folder.path / "results.csv", *seed_rows(results))
        write_csv(folder.path / "curves.csv", *curve_rows(results))
        plots.draw(folder, results, headline(config, dataset))
        progress.update(task, description="done")
    print(text)
    print(f"{time.perf_counter() - clock:.0f} s; results and plots: {folder.path}")


def make_trainer(config: Config, dataset: data.Dataset) -> Trainer:
    """The trainer, with options that fit the images."""
    count, height, width, _ = dataset.train.images.shape
    if config.batch_size > count:
        raise ValueError(
            f"--batch-size is {config.batch_size}; expected at most {count}, the number "
            "of training images"
        )
    model = MODELS[config.model](
        classes=dataset.classes, width=config.width / 32, activation=config.activation
    )
    if min(height, width) < model.smallest_image:
        raise ValueError(
            f"--dataset {config.dataset} has images of {height}x{width}; expected at "
            f"least {model.smallest_image}x{model.smallest_image} for {config.model}"
        )
    options = (field.name for field in fields(Trainer) if hasattr(config, field.name))
    return Trainer(
        model=model,
        train=dataset.train,
        test=dataset.test,
        **{name: getattr(config, name) for name in options if name != "model"},
    )


def open_folder(config: Config) -> RunFolder:
    """The run folder: a new one, or one to go on with."""
    started = time.strftime("%Y%m%d-%H%M%S")
    default = re.sub(r"[^\w.-]", "-", f"{config.dataset}-{config.model}-{started}")
    options = json.loads(json.dumps(asdict(config), default=str))  # as it is read again
    for name in ("output", "data_dir", "download"):  # no result depends on them
        del options[name]
    about = {
        "command": f"{COMMAND} {shlex.join(sys.argv[1:])}",
        "device": str(jax.devices()[0]),
        "versions": {
            "convsim_jax": cs.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "flax", "optax")},
        },
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
    images = jnp.asarray(trainer.test.images[:MEASURED_IMAGES])
    measurements, kernels = {}, {}
    for when in ("start", "end"):
        variables = getattr(training, when)
        measured = measure(trainer.model, variables, images, config.pairs)
        measurements[when] = Measurement(*(np.asarray(x, np.float64) for x in measured))
        first_seed = jax.tree.map(lambda leaf: leaf[0], variables["params"])
        for path, kernel in cs.conv_kernels(first_seed).items():
            kernels[f"{when}/{path}"] = np.asarray(kernel)
    result = Result(
        strength=strength,
        seconds=training.seconds,
        diverged_at=training.diverged_at,
        loss=training.loss,
        accuracy=training.accuracy,
        **measurements,
    )
    folder.add(name, result, kernels)


def headline(config: Config, dataset: data.Dataset) -> str:
    """What the table is of."""
    height, width, channels = dataset.train.images.shape[1:]
    scored = "held-out training" if config.validation else "test"
    return (
        f"{config.dataset}: {len(dataset.train.labels)} training and "
        f"{len(dataset.test.labels)} {scored} images of {height}x{width}x{channels}, "
        f"{dataset.classes} classes; {config.model}, {config.activation}; "
        f"{config.seeds} seeds of {config.epochs} epochs"
    )


if __name__ == "__main__":
    code = command_line.run(main, Config, prog=COMMAND, description=DESCRIPTION)
    command_line.leave(code)
