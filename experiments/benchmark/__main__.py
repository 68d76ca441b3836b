"""What Convolutional Similarity costs, beside the optimizer and the alternatives.

Measures value and gradient of every option of the loss on the conv kernels of well-known
networks, side by side with an SGD-momentum update and a plain copy of the same weights,
the orthogonality penalties, the loss by its definition and, where PyTorch is installed,
the same in PyTorch. All programs of a network run in turn, so that noise falls on all
alike: read the ratios. With the defaults it takes about a quarter of an hour on 2 CPU
cores, which nothing else should use meanwhile.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
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

import convsim_jax as cs
from experiments import command_line
from experiments.benchmark import growth, report, torch_programs, training_step
from experiments.benchmark.networks import NETWORKS, Kernels, random_kernels, smallest
from experiments.benchmark.programs import (
    DIRECT,
    SGD,
    direct,
    losses,
    penalties,
    yardsticks,
)
from experiments.benchmark.timing import Program, compiled, in_turn
from experiments.command_line import flag, unset
from experiments.run_folder import new_folder, write_csv, write_json

WIDTHS = (64, 128, 256, 512, 1024)
# The definition takes seconds for these alone.
DIRECT_LAYERS = 5


@dataclass(frozen=True)
class Config:
    """What to measure, how long, and where the results go."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Networks whose kernels to take."""
    repeats: int = 30
    """Calls of each program at most, after one that warms up."""
    seconds: float = 10.0
    """Time after which a program is called no more, but for two calls."""
    max_width: int = WIDTHS[-1]
    """Widest conv of the plot."""
    step_batch_size: int = 128
    """Images of the training step that the loss is compared with; 0 for no step."""
    torch: bool = True
    """Measure PyTorch too, if it is installed."""
    output: Annotated[Path | None, unset("PATH", "runs/benchmark-<time>")] = None
    """Run folder, new or empty."""

    def check(self) -> None:
        """Raises a `ValueError` that names the first option out of range."""
        unknown = [name for name in self.networks if name not in NETWORKS]
        if unknown or not self.networks:
            raise ValueError(
                f"--networks is {' '.join(unknown)!r}; expected {', '.join(NETWORKS)}"
            )
        least = {"repeats": 2, "max_width": WIDTHS[0], "step_batch_size": 0}
        for name, bound in least.items():
            if (value := getattr(self, name)) < bound:
                raise ValueError(f"{flag(name)} is {value}; expected {bound} or more")
        if not self.seconds > 0:
            raise ValueError(f"--seconds is {self.seconds}; expected more than 0")


def programs_of(kernels: Kernels, *, torch: bool) -> dict[str, Program]:
    """All that is measured on the kernels of one network."""
    functions = losses() | penalties()
    few = smallest(kernels, DIRECT_LAYERS)
    programs = {
        **{n: compiled(f, kernels, args) for n, (f, args) in yardsticks(kernels).items()},
        **{name: compiled(function, kernels) for name, function in functions.items()},
        DIRECT: compiled(direct(), few),
    }
    if torch:
        count = programs[SGD].weights
        for name, call in torch_programs.programs(kernels).items():
            programs[name] = Program(call, count)
    return programs


def by_width(
    config: Config, measure: Callable[[dict[str, Program]], dict[str, float]]
) -> dict[str, dict[int, float]]:
    """Nanoseconds a weight of one conv, for every width; without the slow ones."""
    lines: dict[str, dict[int, float]] = {}
    slow: set[str] = set()
    for width in (width for width in WIDTHS if width <= config.max_width):
        kernels = random_kernels([(3, 3, width, width)])
        functions = losses() | penalties()
        update, arguments = yardsticks(kernels)[SGD]
        programs = {SGD: compiled(update, kernels, arguments)} | {
            name: compiled(function, kernels)
            for name, function in functions.items()
            if name not in slow
        }
        for name, nanoseconds in measure(programs).items():
            lines.setdefault(name, {})[width] = nanoseconds
            if nanoseconds * programs[name].weights > 1e9:
                slow.add(name)
    return lines


def main(config: Config) -> None:
    """Measures, prints the tables and writes the run folder."""
    config.check()
    started = time.perf_counter()
    output = config.output or Path(time.strftime("runs/benchmark-%Y%m%d-%H%M%S"))
    device = report.machine()
    versions = {"convsim_jax": cs.__version__, "jax": version("jax")}
    tables, rows = [], []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        new_folder(output) as folder,
        Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress,
    ):
        parts = len(config.networks) + 2 + bool(config.step_batch_size)
        task = progress.add_task("", total=parts)

        def timed(what: str, programs: dict) -> dict:
            return in_turn(
                programs,
                seconds=config.seconds,
                repeats=config.repeats,
                on_call=lambda name: progress.update(task, description=f"{what}: {name}"),
            )

        def per_weight(what: str, programs: dict) -> dict:
            timings = timed(what, programs)
            return {
                of: 1e9 * timings[of].median / program.weights
                for of, program in programs.items()
            }

        for network in config.networks:
            progress.update(task, description=f"{network}: compiling")
            programs = programs_of(
                random_kernels(NETWORKS[network]()), torch=config.torch
            )
            rows += report.rows_of(network, programs, timed(network, programs))
            tables.append(
                report.network_table([row for row in rows if row.network == network])
            )
            progress.advance(task)
        progress.update(task, description="growth: compiling")
        grown = growth.relative(per_weight("growth", growth.programs()))
        tables.append(report.growth_table(grown))
        progress.advance(task)
        lines = by_width(config, lambda programs: per_weight("width", programs))
        progress.advance(task)
        if config.step_batch_size:
            progress.update(task, description="training step: compiling")
            step = training_step.programs(config.step_batch_size)
            timings = timed("training step", step)
            seconds = {name: timing.median for name, timing in timings.items()}
            share = seconds[training_step.LOSS] / seconds[training_step.STEP]
            tables.append(
                f"Share of a training step (ResNet-18, {config.step_batch_size} images): "
                f"{1e3 * seconds[training_step.LOSS]:.1f} ms of "
                f"{1e3 * seconds[training_step.STEP]:.0f} ms, {share:.2%}"
            )
            progress.advance(task)
        named = ", ".join(f"{name} {number}" for name, number in versions.items())
        text = f"Measured on {device}; {named}\n\n" + "\n\n".join(tables) + "\n"
        (folder / "table.txt").write_text(text, encoding="utf-8")
        write_csv(folder / "rows.csv", report.Row._fields, rows)
        write_csv(
            folder / "growth.csv",
            ("axis", "size", "relative_time_per_weight"),
            [(axis, size, value) for (axis, size), value in grown.items()],
        )
        write_csv(
            folder / "width.csv",
            ("program", "width", "ns_per_weight"),
            [
                (n, width, value)
                for n, line in lines.items()
                for width, value in line.items()
            ],
        )
        about = {"options": asdict(config), "device": device, "versions": versions}
        write_json(folder / "config.json", about)
        report.cost_figure(lines, device).savefig(folder / "cost.png")
        progress.update(task, description="done")
    print(text)
    print(f"{time.perf_counter() - started:.0f} s. Results and plot: {output}")


if __name__ == "__main__":
    prog = "python -m experiments.benchmark"
    sys.exit(command_line.run(main, Config, prog=prog, description=__doc__))
