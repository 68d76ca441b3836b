"""The parts of a measurement: each runs its programs in turn, and returns rows."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
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
from experiments.models.convolution import compiler_options

Clock = Callable[[Mapping[str, Program]], dict[str, Timing]]
Rows = list[dict[str, Any]]
STEP = "training step"


def rates(clock: Clock, size: int = 2**24) -> Rows:
    """Bytes a second copied and read, and multiply-adds a second, in units of 1e9.

    The multiply-adds are those by which two programs differ, over the time by which they
    do. Both make hundreds of them a value, so that both are bound by arithmetic.
    """
    x, few, many = jnp.full(size, 0.5), 256, 1024
    programs = {
        "copy": compiled(lambda _, x: jnp.copy(x), x, x),
        "read": compiled(lambda _, x: x.reshape(-1, 1024).sum(0), x[:1024], x),
        "few": compiled(lambda _, x: multiply_adds(few, x), x, x),
        "many": compiled(lambda _, x: multiply_adds(many, x), x, x),
    }
    took = {name: 1e9 * timing.median / size for name, timing in clock(programs).items()}
    found = {
        "copied, GB/s": 8 / took["copy"],
        "read, GB/s": 4 / took["read"],
        "multiply-adds, G/s": (many - few) / (took["many"] - took["few"]),
    }
    return [{"program": name, "rate": value} for name, value in found.items()]


def multiply_adds(count: int, x: jax.Array) -> jax.Array:
    """So many multiply-adds of every element, and few other operations.

    Of each of 8 chains, y becomes `y x + x` again and again; the result is their sum. A
    multiply-add waits for the last one of its chain: as many are under way as there are
    chains, and a core has two units of a latency of 4.
    """
    chains = [x + i for i in range(8)]
    for _ in range(count // 8):
        chains = [y * x + x for y in chains]
    return reduce(operator.add, chains)


def kernels(name: str, clock: Clock, *, torch: bool) -> Rows:
    """Updates of the conv kernels of one network, with every loss and with none."""
    weights = networks.random_kernels(networks.kernel_shapes(name))
    programs = updates(weights, transformations())
    if torch:
        for program, loss in torch_programs.LOSSES.items():
            programs[program] = Program(torch_programs.update(weights, loss))
    return rows(programs, weights, clock)


def width(widths: Sequence[int], clock: Clock) -> Rows:
    """One 3x3 conv of every width; programs that take a second leave the wider out."""
    measured: Rows = []
    for size in widths:
        slow = {row["program"] for row in measured if row["median"] > 1}
        weights = networks.random_kernels({"kernel": (3, 3, size, size)})
        programs = updates(weights, set(transformations()) - slow)
        measured += [{**row, "size": size} for row in rows(programs, weights, clock)]
    return measured


def training(name: str, batch_size: int, clock: Clock) -> Rows:
    """A step of training a network; its update alone; that with a loss added."""
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    optimizer = sgd(optax.identity())
    network = networks.random_arrays(networks.network(name, optimizer))
    batch = networks.random_arrays(networks.batch_of(name, batch_size))
    step = networks.step_of(name, optimizer, dtype)
    programs = {STEP: compiled(step, network, batch, options=compiler_options())}
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
