"""The parts of a measurement: each runs its programs in turn, and returns rows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax

from experiments.benchmark import networks, torch_programs
from experiments.benchmark.timing import Program, Timing, compiled, queued
from experiments.benchmark.updates import (
    ALL_PAIRS,
    RECOMMENDED,
    SGD,
    sgd,
    transformations,
    update,
)
from experiments.losses import Decorrelation
from experiments.models.convolution import compiler_options

Clock = Callable[[Mapping[str, Program]], dict[str, Timing]]
Rows = list[dict[str, Any]]
STEP, DECORRELATED = "training step", "maps decorrelated"
APART = Decorrelation(rows=True)  # of a quarter of the rows


def kernels(name: str, clock: Clock, *, torch: bool) -> Rows:
    """Updates of the conv kernels of one network, with every loss and with none."""
    weights = networks.random_kernels(networks.kernel_shapes(name))
    programs = updates(weights, transformations())
    if torch:
        for program, loss in torch_programs.LOSSES.items():
            programs[program] = Program(torch_programs.update(weights, loss))
    return rows(programs, weights, clock)


def training(name: str, batch_size: int, clock: Clock) -> Rows:
    """A step of training a network, also with a loss of its maps; its update alone.

    And that update with a loss of the kernels.
    """
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    optimizer = sgd(optax.identity())
    network = networks.random_arrays(networks.network(name, optimizer))
    batch = networks.random_arrays(networks.batch_of(name, batch_size))
    programs = {}
    for program, of_maps in (STEP, None), (DECORRELATED, APART):
        step = networks.step_of(name, optimizer, dtype, of_maps)
        programs[program] = compiled(step, network, batch, options=compiler_options())
    weights = network.variables["params"]
    programs |= updates(weights, (SGD, ALL_PAIRS, RECOMMENDED))
    about = {"batch_size": batch_size, "dtype": dtype}
    return [{**row, **about} for row in rows(programs, weights, clock)]


def updates(weights: Any, names: Iterable[str]) -> dict[str, Program]:
    """The update of weights by SGD behind each transformation of the gradient."""
    gradient = jax.tree.map(lambda weight: 1e-3 * weight, weights)
    programs = {}
    for name, transformation in transformations().items():
        if name in names:
            optimizer = sgd(transformation)
            carry = (weights, optimizer.init(weights))
            programs[name] = compiled(update(optimizer), carry, gradient, times=queued())
    return programs


def rows(programs: Mapping[str, Program], weights: Any, clock: Clock) -> Rows:
    """The figures of each program, in seconds and units of the weights' bytes."""
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    timings = clock(programs)
    return [
        {
            "program": name,
            **timings[name]._asdict(),
            "weights": count,
            "compile_seconds": program.compile_seconds,
            "extra_memory": program.extra_memory / (4 * count),
        }
        for name, program in programs.items()
    ]
