"""What Convolutional Similarity costs, beside the optimizer and the alternatives.

Measures value and gradient of every option of the loss on the conv kernels of well-known
networks, side by side with an SGD-momentum update and a plain copy of the same weights,
the orthogonality penalties, the loss by its definition and, where PyTorch is installed,
the same in PyTorch. Then steps of training two networks, here and in PyTorch. Programs
run in turn, so that noise falls on all alike: read the ratios. With the defaults it takes
about a quarter of an hour on 2 CPU cores, which nothing else should use meanwhile.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from experiments import command_line
from experiments.benchmark import parts, report
from experiments.benchmark.environment import check_unchanged, environment
from experiments.benchmark.networks import NETWORKS
from experiments.benchmark.timing import in_turn
from experiments.benchmark.training_step import TRAINED
from experiments.command_line import check_least, unset
from experiments.run_folder import claim, read_json, replacing, write_json

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)
WIDTHS = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Config:
    """What to measure, how long, and where the results go."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Networks whose kernels to take."""
    losses: bool = True
    """Measure the losses on these kernels; else only training."""
    repeats: int = 30
    """Calls of each program at most, after one that warms up."""
    seconds: float = 10.0
    """Time after which a program is called no more, but for two calls."""
    max_width: int = WIDTHS[-1]
    """Widest conv of the plot."""
    step_batch_size: int = 128
    """Images of a step of training; 0 for no training."""
    definition: bool = True
    """Measure the loss by its definition too, by conv_general_dilated."""
    torch: bool = True
    """Measure PyTorch too, if it is installed."""
    output: Annotated[Path | None, unset("PATH", "runs/benchmark-<time>")] = None
    """Run folder. Part of an equal run in it, of this machine and versions, is kept."""

    def check(self) -> None:
        """Raises a `ValueError` that names the first option out of range."""
        unknown = [name for name in self.networks if name not in NETWORKS]
        if unknown or not self.networks:
            raise ValueError(
                f"--networks is {' '.join(unknown)!r}; expected {', '.join(NETWORKS)}"
            )
        check_least(self, repeats=2, max_width=WIDTHS[0], step_batch_size=0)
        if not self.losses and not self.step_batch_size:
            raise ValueError(
                "--no-losses is given with --step-batch-size 0; expected one of the two"
            )
        if not self.seconds > 0:
            raise ValueError(f"--seconds is {self.seconds}; expected more than 0")


def main(config: Config) -> None:
    """Measures what is not measured yet, prints the tables, writes the run folder."""
    config.check()
    started = time.perf_counter()
    folder = config.output or Path(time.strftime("runs/benchmark-%Y%m%d-%H%M%S"))
    here = environment(torch=config.torch)
    options = {k: v for k, v in asdict(config).items() if k != "output"}
    options = json.loads(json.dumps(options))  # as it is read again
    check_unchanged(folder, here)
    claim(folder, options, {"environment": here})
    results = {}
    # It must not draw while a program is timed.
    with Progress(*COLUMNS, console=Console(stderr=True), auto_refresh=False) as progress:
        todo = parts_of(config, torch="torch" in here)
        task = progress.add_task("", total=len(todo))
        for name, part in todo.items():
            file = folder / f"{name}.json"
            if not file.exists():
                progress.update(task, description=f"{name}: compiling", refresh=True)

                def show(program: object, name: str = name) -> None:
                    progress.update(task, description=f"{name}: {program}", refresh=True)

                clock = partial(
                    in_turn,
                    seconds=config.seconds,
                    repeats=config.repeats,
                    on_call=show,
                )
                write_json(file, part(clock))
            results[name] = read_json(file)
            progress.advance(task)
        progress.update(task, description="done", refresh=True)
    text = report.text(results, here)
    with replacing(folder / "table.txt", "w") as file_:
        file_.write(text)
    if config.losses:
        with replacing(folder / "cost.png", "wb") as file_:
            report.cost_figure(results["width"], here["device"]).savefig(file_)
    print(text)
    print(f"{time.perf_counter() - started:.0f} s. Results: {folder}")


def parts_of(
    config: Config, *, torch: bool
) -> dict[str, Callable[[parts.Clock], list[dict]]]:
    """What is measured, one after the other: each makes rows, given the clock."""
    chosen: dict[str, Callable[[parts.Clock], list[dict]]] = {}
    if config.losses:
        widths = [width for width in WIDTHS if width <= config.max_width]
        for name in config.networks:
            chosen[name] = partial(
                parts.network, name, definition=config.definition, torch=torch
            )
        chosen |= {"growth": parts.growth, "width": partial(parts.width, widths)}
    if config.step_batch_size:
        for name in TRAINED:
            chosen[report.training_part(name)] = partial(
                parts.training, name, config.step_batch_size, torch=torch
            )
    return chosen


if __name__ == "__main__":
    prog = "python -m experiments.benchmark"
    command_line.leave(command_line.run(main, Config, prog=prog, description=__doc__))
