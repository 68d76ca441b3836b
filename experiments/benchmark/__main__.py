"""What Convolutional Similarity costs, beside the optimizer and the alternatives.

Measures the SGD-momentum update of the conv kernels of well-known networks, parameters
and state donated as in a training loop, with every option of the loss in its chain and
with none, the orthogonality penalties and, where PyTorch is installed, the same there.
The loss costs the difference. Then its share of a step of training. Programs run in
turn, so that noise falls on all alike: read the ratios. With the defaults it takes about
a quarter of an hour on 2 CPU cores, which nothing else should use meanwhile.

With --compile-for nothing is measured: the programs of ResNet-18 and -50 are compiled for
accelerators that need not be there, and their kernels, bytes and memory counted.
"""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import Progress

from experiments import command_line
from experiments.benchmark import accelerators, counts, parts, report
from experiments.benchmark.networks import NETWORKS
from experiments.benchmark.timing import device, in_turn
from experiments.command_line import check_least, unset
from experiments.run_folder import claim, read_json, replacing, versions, write_json

TRAINED = ("cnn", "resnet18")
COMPILED = ("resnet18", "resnet50")


@dataclass(frozen=True)
class Config:
    """What to measure, how long, and where the results go."""

    networks: tuple[str, ...] = tuple(name for name in NETWORKS if name != "cnn")
    """Networks whose kernels to take."""
    losses: bool = True
    """Measure the losses on these kernels; else only training."""
    repeats: int = 30
    """Calls of each program at most, after one that warms up."""
    seconds: float = 10.0
    """Time after which a program is called no more, but for two calls."""
    step_batch_size: int = 128
    """Images of a step of training; 0 for no training."""
    torch: bool = True
    """Measure PyTorch too, if it is installed."""
    compile_for: tuple[str, ...] = ()
    """Count for these accelerators instead: h100, v4, v5e, v6e."""
    output: Annotated[Path | None, unset("PATH", "runs/benchmark-<time>")] = None
    """Run folder. Part of an equal run in it, of this machine and versions, is kept."""

    def check(self) -> None:
        """Raises a `ValueError` that names the first option out of range."""
        unknown = [name for name in self.networks if name not in NETWORKS]
        if unknown or not self.networks:
            expected = ", ".join(NETWORKS)
            raise ValueError(f"--networks is {' '.join(unknown)!r}; expected {expected}")
        check_least(self, repeats=2, step_batch_size=0)
        if not self.losses and not self.step_batch_size:
            raise ValueError(
                "--no-losses is given with --step-batch-size 0; expected one of the two"
            )
        if not self.seconds > 0:
            raise ValueError(f"--seconds is {self.seconds}; expected more than 0")


def main(config: Config) -> None:
    """Does what is not done yet, prints the tables, writes the run folder."""
    config.check()
    started = time.perf_counter()
    folder = config.output or Path(time.strftime("runs/benchmark-%Y%m%d-%H%M%S"))
    if config.compile_for:
        accelerators.prepare(config.compile_for)
        here = {"compiled for": " and ".join(config.compile_for)}
        here |= versions("jaxlib", "libtpu", "jax-cuda12-pjrt")
    else:
        more = ("jaxlib", "torch") if config.torch else ("jaxlib",)
        here = {"device": device(), **versions(*more)}
    options = {k: v for k, v in asdict(config).items() if k != "output"}
    claim(folder, json.loads(json.dumps(options | {"environment": here})), {})
    results = {}
    # It must not draw while a program is timed.
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        todo = parts_of(config, torch="torch" in here)
        task = progress.add_task("", total=len(todo))

        def show(program: object) -> None:
            progress.update(task, description=f"{name}: {program}", refresh=True)

        clock = partial(
            in_turn, seconds=config.seconds, repeats=config.repeats, on_call=show
        )
        for name, part in todo.items():
            file = folder / f"{name}.json"
            if not file.exists():
                show("compiling")
                write_json(file, part(clock))
            results[name] = read_json(file)
            progress.advance(task)
    text = report.text(results, here)
    with replacing(folder / "table.txt", "w") as file_:
        file_.write(text)
    print(text)
    print(f"{time.perf_counter() - started:.0f} s. Results: {folder}")


def parts_of(config: Config, *, torch: bool) -> dict[str, Callable[[parts.Clock], list]]:
    """What is done, one after the other: each makes rows, given the clock."""
    chosen: dict[str, Callable[[parts.Clock], list]] = {}
    if config.compile_for:
        compiled = [name for name in COMPILED if name in config.networks]
        for name, kind in itertools.product(compiled, config.compile_for):
            if config.losses:
                chosen[f"compiled-{kind}-{name}"] = partial(counts.kernels, kind, name)
            if config.step_batch_size:
                step = partial(counts.step, kind, name, config.step_batch_size)
                chosen[f"step-{kind}-{name}"] = step
        return chosen
    if config.losses:
        for name in config.networks:
            chosen[f"kernels-{name}"] = partial(parts.kernels, name, torch=torch)
    if config.step_batch_size:
        for name in TRAINED:
            step = partial(parts.training, name, config.step_batch_size)
            chosen[f"training-{name}"] = step
    return chosen


if __name__ == "__main__":
    prog = "python -m experiments.benchmark"
    command_line.leave(command_line.run(main, Config, prog=prog, description=__doc__))
