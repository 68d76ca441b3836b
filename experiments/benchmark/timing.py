"""Programs compiled, and run in turn."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Program(NamedTuple):
    """Something to measure.

    Attributes:
        call: runs it, to its end.
        compile_seconds: of tracing and compilation; NaN where there is none.
        extra_memory: bytes at the peak besides arguments and results, or NaN.
        times: how often `call` runs it.
    """

    call: Callable[[], Any]
    compile_seconds: float = np.nan
    extra_memory: float = np.nan
    times: int = 1


class Timing(NamedTuple):
    """Of the calls of one program: seconds, the middle one and the quartiles."""

    median: float
    quartiles: tuple[float, float]
    calls: int


def compiled(
    function: Callable, carry: Any, *arguments: Any, options: Any = None, times: int = 1
) -> Program:
    """`carry = function(carry, *arguments)`, again and again, the old one donated.

    The carry is copied before, and the compiler is given the options.
    """
    carry = jax.tree.map(jnp.copy, carry)
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(function, donate_argnums=0).lower(carry, *arguments)
    program = lowered.compile(compiler_options=options)
    seconds = time.perf_counter() - start

    def call() -> Any:
        nonlocal carry
        for _ in range(times):
            carry = program(carry, *arguments)
        return jax.block_until_ready(carry)

    memory = program.memory_analysis()
    extra = np.nan if memory is None else float(memory.temp_size_in_bytes)
    return Program(call, seconds, extra, times)


def queued() -> int:
    """How often a call runs a fast program: a queue hides what it takes to start one."""
    return 1 if jax.default_backend() == "cpu" else 20


def in_turn(
    programs: Mapping[Any, Program],
    *,
    seconds: float,
    repeats: int,
    on_call: Callable[[Any], None] = lambda name: None,
) -> dict[Any, Timing]:
    """Runs every program once, then again and again, one after the other.

    Whatever else the machine does then falls on all of them alike. A program is left out
    of further rounds when it has taken `seconds`, but not before the second call after
    the first, which warms up and does not count.
    """
    times: dict[Any, list[float]] = {name: [] for name in programs}
    for round_ in range(repeats + 1):
        for name, program in programs.items():
            if round_ > 2 and sum(times[name]) * program.times > seconds:
                continue
            on_call(name)
            start = time.perf_counter()
            program.call()
            if round_:
                times[name].append((time.perf_counter() - start) / program.times)
    quartiles = {name: np.quantile(x, (0.25, 0.5, 0.75)) for name, x in times.items()}
    return {
        name: Timing(float(median), (float(low), float(high)), len(times[name]))
        for name, (low, median, high) in quartiles.items()
    }


def device() -> str:
    """The device, in words."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{os.cpu_count()} cores of {names[0] if names else os.uname().machine}"
