"""How the cost of all pairs grows: with M, with C, and with the number of layers."""

from collections.abc import Mapping

from experiments.benchmark.networks import random_kernels
from experiments.benchmark.programs import ALL_PAIRS, losses
from experiments.benchmark.timing import Program, compiled

SIZES = (128, 256, 512, 1024)
LAYERS = (1, 2, 4, 8)
FIXED = 256


def programs() -> dict[tuple[str, int], Program]:
    """All pairs of 3x3 kernels, of `FIXED` channels but for one axis that grows."""
    shapes = {
        **{("M", M): [(3, 3, FIXED, M)] for M in SIZES},
        **{("C", C): [(3, 3, C, FIXED)] for C in SIZES},
        **{("layers", n): [(3, 3, FIXED, FIXED)] * n for n in LAYERS},
    }
    loss = losses()[ALL_PAIRS]
    return {of: compiled(loss, random_kernels(kernels)) for of, kernels in shapes.items()}


def relative(per_weight: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Time per weight, relative to that of the axis's first size.

    >>> relative({("M", 128): 2.0, ("M", 256): 3.0, ("C", 128): 4.0})
    {('M', 128): 1.0, ('M', 256): 1.5, ('C', 128): 1.0}
    """
    first: dict[str, float] = {}
    for (axis, _), value in per_weight.items():
        first.setdefault(axis, value)
    return {(axis, size): v / first[axis] for (axis, size), v in per_weight.items()}
