"""The parts of the benchmark: each measures its programs in turn, and returns rows."""

from collections.abc import Callable, Sequence

from experiments.benchmark import torch_networks, torch_programs, training_step
from experiments.benchmark.networks import NETWORKS, Kernels, random_kernels, small
from experiments.benchmark.programs import (
    ALL_PAIRS,
    DIRECT,
    SGD,
    direct,
    losses,
    penalties,
    yardsticks,
)
from experiments.benchmark.timing import Program, Timing, compiled, queued

Clock = Callable[[dict], dict]

# Weights of a kernel. The definition takes seconds, and gigabytes, for these alone.
DIRECT_SIZE = 2**16
# Of the kernels that grow along one axis: what the others are, and what that one is.
FIXED = 256
GROWTH = {
    "M": (128, 256, 512, 1024),
    "C": (128, 256, 512, 1024),
    "layers": (1, 2, 4, 8),
}


def network(name: str, clock: Clock, *, definition: bool, torch: bool) -> list[dict]:
    """Everything on the conv kernels of one network."""
    kernels = random_kernels(NETWORKS[name]())
    programs = on_kernels(kernels)
    if definition:
        programs[DIRECT] = compiled(direct(), small(kernels, DIRECT_SIZE))
    if torch:
        for program, call in torch_programs.programs(kernels).items():
            programs[program] = Program(call, programs[SGD].weights)
    return rows(programs, clock(programs))


def growth(clock: Clock) -> list[dict]:
    """All pairs of 3x3 kernels, as M, C or the number of layers grows."""
    shapes = {
        "M": lambda M: [(3, 3, FIXED, M)],
        "C": lambda C: [(3, 3, C, FIXED)],
        "layers": lambda layers: [(3, 3, FIXED, FIXED)] * layers,
    }
    programs = {
        (axis, size): compiled(
            losses()[ALL_PAIRS], random_kernels(shapes[axis](size)), times=queued()
        )
        for axis, sizes in GROWTH.items()
        for size in sizes
    }
    measured = rows(programs, clock(programs))
    return [
        {**row, "program": ALL_PAIRS, "axis": axis, "size": size}
        for row, (axis, size) in zip(measured, programs, strict=True)
    ]


def width(widths: Sequence[int], clock: Clock) -> list[dict]:
    """One 3x3 conv of every width; programs that take a second leave the wider out."""
    measured: list[dict] = []
    for size in widths:
        slow = {row["program"] for row in measured if row["median"] > 1}
        programs = on_kernels(random_kernels([(3, 3, size, size)]), without=slow)
        measured += [{**row, "size": size} for row in rows(programs, clock(programs))]
    return measured


def training(name: str, batch_size: int, clock: Clock, *, torch: bool) -> list[dict]:
    """Steps of training a network, in PyTorch too; the loss alone; the images alone."""
    programs = training_step.programs(name, batch_size)
    weights = programs[training_step.STEP].weights
    if torch:
        for program, call in torch_networks.programs(name, batch_size).items():
            programs[program] = Program(call, weights)
    about = {
        "batch_size": batch_size,
        "steps": training_step.steps_a_call(),
        "dtype": training_step.dtype(),
    }
    return [{**row, **about} for row in rows(programs, clock(programs))]


def on_kernels(kernels: Kernels, without: Sequence[str] | set[str] = ()) -> dict:
    """Yardsticks, losses and penalties, compiled."""
    functions = {name: (f, (kernels,)) for name, f in (losses() | penalties()).items()}
    return {
        name: compiled(function, kernels, arguments, times=queued())
        for name, (function, arguments) in (yardsticks(kernels) | functions).items()
        if name not in without
    }


def rows(programs: dict, timings: dict[object, Timing]) -> list[dict]:
    """The figures of each program, in seconds, bytes and weights."""
    return [
        {
            "program": name,
            "median": timings[name].median,
            "quartiles": timings[name].quartiles,
            "calls": timings[name].calls,
            "weights": program.weights,
            "compile_seconds": program.compile_seconds,
            "extra_memory": program.extra_memory,
        }
        for name, program in programs.items()
    ]
