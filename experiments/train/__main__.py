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

from experiments import command_line, run_folder
from experiments.configs import configuration, given, names
from experiments.data.open import open_source
from experiments.data.source import Source
from experiments.fit import devices
from experiments.fit.build import build_engine, build_feed
from experiments.fit.feeds import Feed
from experiments.interval import interval
from experiments.interventions import INTERVENTIONS, intervention
from experiments.options import Config
from experiments.progress import display, stderr, tracked
from experiments.record import Outcome, read_kernels, read_outcome
from experiments.report import write_report
from experiments.report.wording import duration
from experiments.table import aligned
from experiments.train.run import Run
from experiments.train.widths import settled_widths

COMMAND = "python -m experiments.train"
# Of these too a run notes the versions, where they are installed.
PACKAGES = ("jaxlib", "numpy", "orbax-checkpoint", "grain", "tensorflow-datasets")
DESCRIPTION = (
    (__doc__ or "")
    + f"\nConfigurations: {', '.join(names())}.\n\nMethods:\n"
    + "\n".join(f"* {name}: {method.summary}" for name, method in INTERVENTIONS.items())
)


def main(config: Config) -> int:
    """Trains what is not trained yet, prints the table, writes the run folder."""
    config = settled_widths(config)
    config.check()
    clock = time.perf_counter()
    if config.distributed:
        devices.join()
    console = stderr(quiet=jax.process_index() > 0)
    with devices.together():
        source = open_source(
            config.dataset, data_dir=config.data_dir, download=config.download
        )
        feed = build_feed(config, source, tracked(console))
        method = intervention(config.method)
        engine = build_engine(config, method, feed, seeds=config.seeds)
        folder = open_folder(config, source, feed)
    with devices.together():
        devices.check_shared(folder)
        outcome = read_outcome(folder)
    if outcome is None or read_kernels(folder) is None:
        with (
            run_folder.no_stub(folder),
            display(console, config.epochs, feed.steps) as shown,
        ):
            layers = engine.options.layers
            for text in (*config.warnings(), *(layers.left_out if layers else ())):
                shown.warn(text)
            run = Run(config, engine, feed, folder, shown)
            if outcome is None:
                outcome = run()
            else:
                run.remake_kernels()
    if jax.process_index() > 0:
        return 0
    report = write_report(folder)
    print(f"{headline(config, feed)}\n\n{table(outcome)}\n")
    print(
        f"{duration(outcome.seconds)} of training; this command took "
        f"{duration(time.perf_counter() - clock)}; report: {report}"
    )
    if outcome.all_diverged:
        rate = config.learning_rate
        print(
            f"error: --learning-rate is {rate}, with which every seed diverged; expected "
            "less",
            file=sys.stderr,
        )
        return command_line.BAD_INPUT
    return 0


def open_folder(config: Config, source: Source, feed: Feed) -> Path:
    """The run folder: a new one, or one to go on with."""
    about = {
        "command": f"{COMMAND} {shlex.join(sys.argv[1:])}",
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": run_folder.versions(*PACKAGES),
        "images_normalised_by": {
            name: [float(f"{value:.7g}") for value in getattr(feed, name)]
            for name in ("mean", "deviation")
        },
    }
    method = intervention(config.method)
    strength = method.strength if config.strength is None else config.strength
    # What the options stand for: it is to be the same if the run goes on.
    settled = {"dataset": source.fingerprint(), "strength": strength}
    options = run_folder.plain(config.options())
    if (folder := config.output) is None:
        started = time.strftime("%Y%m%d-%H%M%S")
        name = f"{Path(config.config).name}-{config.method}-{started}"
        folder = Path("runs", re.sub(r"[^\w.+-]", "-", name))
        if jax.process_index() == 0:
            folder = run_folder.fresh(folder)
    if jax.process_index() == 0:
        run_folder.claim(folder, options, about, settled=settled, growing=("epochs",))
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
    header = ["seed", "test accuracy %", "epoch", "feature-map similarity", "kernel norm"]
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
        # Of two seeds the interval would say less than the seeds themselves.
        told = f"{mean:.2f} ± {reach:.2f}" if len(finished) > 2 else f"{mean:.2f}"
        rows.append(["mean", told, "", "", ""])
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
