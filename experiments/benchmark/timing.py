"""Programs compiled, and run in turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Program(NamedTuple):
    """Something to measure.

    Attributes:
        call: runs it, to its end.
        weights: number of weights that it reads.
        compile_seconds: of tracing and compilation; NaN where there is none.
        extra_memory: at the peak, besides arguments and results, by XLA's account, in
            units of the weights' bytes; NaN where it is not known.
        times: how often `call` runs it.
    """

    call: Callable[[], Any]
    weights: int
    compile_seconds: float = np.nan
    extra_memory: float = np.nan
    times: int = 1


class Timing(NamedTuple):
    """Of the calls of one program: seconds, the middle one and the quartiles."""

    median: float
    quartiles: tuple[float, float]
    calls: int


def compiled(
    function: Callable,
    kernels: Mapping,
    arguments: tuple = (),
    options: dict[str, str | bool] | None = None,
    times: int = 1,
) -> Program:
    """A JAX function of `arguments`, by default of the kernels, ready to run.

    Args:
        function: to be compiled.
        kernels: what memory and time are compared with.
        arguments: of the function.
        options: of the compiler.
        times: how often a call runs it.
    """
    arguments = arguments or (kernels,)
    jax.clear_caches()
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    seconds = time.perf_counter() - start
    leaves = jax.tree.leaves(kernels)
    memory = program.memory_analysis()
    extra = np.nan if memory is None else float(memory.temp_size_in_bytes)

    def call() -> Any:
        for _ in range(times):
            result = program(*arguments)
        return jax.block_until_ready(result)

    return Program(
        call,
        weights=sum(leaf.size for leaf in leaves),
        compile_seconds=seconds,
        extra_memory=extra / sum(leaf.nbytes for leaf in leaves),
        times=times,
    )


def queued() -> int:
    """How often a call runs a fast program: a queue hides what it takes to start one."""
    return 1 if jax.default_backend() == "cpu" else 20


def in_turn(
    programs: Mapping[str, Program],
    *,
    seconds: float,
    repeats: int,
    on_call: Callable[[str], None] = lambda name: None,
) -> dict[str, Timing]:
    """Runs every program once, then again and again, one after the other.

    Whatever else the machine does then falls on all of them alike. A program is left out
    of further rounds when it has taken `seconds`, but not before the second call after
    the first, which warms up and does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for round_ in range(repeats + 1):
        for name, program in programs.items():
            if round_ > 2 and sum(times[name]) * program.times > seconds:
                continue
            on_call(name)
            start = time.perf_counter()
            program.call()
            if round_:
                times[name].append((time.perf_counter() - start) / program.times)
    return {name: summarized(of_name) for name, of_name in times.items()}


def summarized(times: Sequence[float]) -> Timing:
    """The middle and the spread of some times.

    >>> summarized([3.0, 1.0, 2.0, 100.0, 4.0])
    Timing(median=3.0, quartiles=(2.0, 4.0), calls=5)
    """
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return Timing(median, (low, high), len(times))
