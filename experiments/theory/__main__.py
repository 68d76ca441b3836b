"""The theory of Convolutional Similarity, over thousands of seeds.

Repeats sections 4.1, 4.3 and 4.4 of Belmekki et al., arXiv 2411.03226, on random
kernels of one channel, and asks each time whether the feature maps become less alike:

* 4.1 minimises the squared cosine of two kernels (kernel orthogonality);
* 4.3 minimises the Convolutional Similarity (CS) of two kernels;
* 4.4 minimises the CS of the pairs (1, 2), (2, 3), (3, 4) of four kernels, in turn.

Kernels and signals are uniform on [0, 1). All seeds of a section run in one compiled
program, the three sections in under a minute. The figures, each with its spread and its
sampling error, stand beside reference figures, for which the defaults are made. They are
printed as tables and kept in a run folder, with plots.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from rich.console import Console

from experiments import command_line
from experiments.command_line import check_least, check_positive, unset
from experiments.run_folder import new_folder
from experiments.theory import plots
from experiments.theory.descent import (
    KERNEL_COUNT,
    Descent,
    descend,
    pair_similarity,
    squared_cosine,
    train_pairs,
)
from experiments.theory.report import make_report

MAX_VALUES = 2**26
"""Of one curve over all seeds: about 2 GiB of memory in all."""


@dataclass(frozen=True)
class Config:
    """How many seeds, of what, and where the results go."""

    seeds: int = 5000
    """Number of random draws of kernels and signal, each with a seed of its own."""
    steps: int = 300
    """SGD steps of sections 4.1 and 4.3."""
    rounds: int = 10
    """Rounds of section 4.4, each with one SGD step on every trained pair."""
    taps: int = 9
    """Length of a kernel."""
    signal_length: int = 64
    """Length of the input signal."""
    cosine_learning_rate: float = 0.1
    """Learning rate of section 4.1, on the squared cosine of the kernels."""
    learning_rate: float = 0.01
    """Learning rate of sections 4.3 and 4.4, on Convolutional Similarity."""
    first_seed: int = 0
    """The first seed; the others follow it."""
    output: Annotated[Path | None, unset("PATH", "runs/theory-<time>")] = None
    """Run folder, new or empty."""

    def check(self) -> None:
        """Raises a `ValueError` that names the first option out of range."""
        check_least(self, seeds=2, steps=1, rounds=1, taps=1, first_seed=0)
        values = max(self.steps, self.rounds * KERNEL_COUNT**2)
        if self.seeds > (most := MAX_VALUES // values):
            raise ValueError(
                f"--seeds is {self.seeds}; expected {most} or less for {self.steps} "
                f"steps and {self.rounds} rounds, to fit into memory"
            )
        if self.first_seed > (most := 2**32 - self.seeds):
            raise ValueError(
                f"--first-seed is {self.first_seed}; expected {most} or less for "
                f"{self.seeds} seeds"
            )
        if self.signal_length < self.taps:
            raise ValueError(
                f"--signal-length is {self.signal_length}; expected at least --taps, "
                f"{self.taps}, for the kernel to fit into the signal"
            )
        check_positive(self, "cosine_learning_rate", "learning_rate")


def draw(seed: jax.Array, config: Config, kernels: int) -> tuple[jax.Array, jax.Array]:
    """Kernels, shape `(taps, 1, kernels)`, and a signal, shape `(signal_length,)`."""
    kernel_key, signal_key = jax.random.split(jax.random.key(seed))
    return (
        jax.random.uniform(kernel_key, (config.taps, 1, kernels)),
        jax.random.uniform(signal_key, (config.signal_length,)),
    )


def over_seeds(experiment: Callable, config: Config, section: str) -> Any:
    """Runs `experiment(seed)` for all seeds in one program; drops those that diverge.

    Returns:
        What `experiment` returns, in NumPy arrays with an axis of seeds in front.

    Raises:
        ValueError: fewer than two seeds are left.
    """
    seeds = config.first_seed + np.arange(config.seeds, dtype=np.uint32)
    results = jax.device_get(jax.jit(jax.vmap(experiment))(seeds))
    finite = np.ones(config.seeds, bool)
    for leaf in jax.tree.leaves(results):
        finite &= np.isfinite(leaf).reshape(config.seeds, -1).all(axis=1)
    if finite.sum() < 2:
        raise ValueError(
            f"section {section} diverged in {config.seeds - finite.sum()} of "
            f"{config.seeds} seeds: lower its learning rate"
        )
    return jax.tree.map(lambda leaf: leaf[finite], results)


def two_kernels(config: Config) -> dict[str, Descent]:
    """Sections 4.1 and 4.3, on the same kernels and signals."""
    losses = {
        "4.1": (squared_cosine, config.cosine_learning_rate),
        "4.3": (pair_similarity, config.learning_rate),
    }

    def experiment(seed: jax.Array, section: str) -> Descent:
        loss, rate = losses[section]
        kernel, signal = draw(seed, config, kernels=2)
        return descend(kernel, signal, loss=loss, learning_rate=rate, steps=config.steps)

    return {
        section: over_seeds(partial(experiment, section=section), config, section)
        for section in losses
    }


def four_kernels(config: Config) -> np.ndarray:
    """Section 4.4: CS matrices, shape `(seeds, rounds + 1, 4, 4)`."""

    def experiment(seed: jax.Array) -> jax.Array:
        kernel, _ = draw(seed, config, kernels=KERNEL_COUNT)
        return train_pairs(
            kernel, learning_rate=config.learning_rate, rounds=config.rounds
        )

    return over_seeds(experiment, config, "4.4")


def main(config: Config) -> None:
    """Runs the three sections, prints the tables and writes the run folder."""
    config.check()
    started = time.perf_counter()
    console = Console()
    output = config.output or Path(time.strftime("runs/theory-%Y%m%d-%H%M%S"))
    with new_folder(output) as folder:
        with console.status(f"Sections 4.1, 4.3 and 4.4 over {config.seeds:,} seeds"):
            descents, matrices = two_kernels(config), four_kernels(config)
        report = make_report(descents, matrices, asdict(config))
        console.print(report)
        report.write(folder)
        plots.reductions(descents).savefig(folder / "reductions.png")
        plots.curves(descents, matrices).savefig(folder / "curves.png")
        plots.pairs(matrices).savefig(folder / "pairs.png")
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s. Results and plots: {output}")


if __name__ == "__main__":
    prog = "python -m experiments.theory"
    code = command_line.run(main, Config, prog=prog, description=__doc__)
    command_line.leave(code)
