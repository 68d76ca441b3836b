"""What the machine can do in programs of XLA's: `python -m experiments.benchmark.rates`.

Prints how fast an array is copied and read, and how many multiply-adds a second a fused
elementwise program does: the two bounds of `ROOFLINE.md`. The multiply-adds are those by
which two programs differ, over the time by which they do. Both programs make hundreds of
them a value, so that both are bound by arithmetic: of one that is bound by memory, some
multiply-adds take no time of their own, and the rate would come out too high.
"""

import operator
from functools import reduce

import jax
import jax.numpy as jnp

from experiments.benchmark.environment import device
from experiments.benchmark.timing import compiled, in_turn, queued

SIZE = 2**24
FEW, MANY = 256, 1024
# Independent of each other. A multiply-add waits for the last one of its chain: as many
# are under way as there are chains, and a core has two units of a latency of 4.
CHAINS = 8


def multiply_adds(count: int, x: jax.Array) -> jax.Array:
    """So many multiply-adds of every element, and few other operations.

    Of each chain, y becomes `y x + x` again and again; the result is their sum.
    """
    chains = [x + i for i in range(CHAINS)]
    for _ in range(count // CHAINS):
        chains = [y * x + x for y in chains]
    return reduce(operator.add, chains)


def rates(size: int = SIZE, *, repeats: int = 20, seconds: float = 5.0) -> dict:
    """Bytes a second copied and read, and multiply-adds a second, in units of 1e9."""
    x = {"x": jnp.full(size, 0.5)}
    programs = {
        "copy": lambda x: jnp.copy(x["x"]),
        "read": lambda x: x["x"].reshape(-1, 1024).sum(0),
        "few": lambda x: multiply_adds(FEW, x["x"]),
        "many": lambda x: multiply_adds(MANY, x["x"]),
    }
    timings = in_turn(
        {name: compiled(f, x, times=queued()) for name, f in programs.items()},
        seconds=seconds,
        repeats=repeats,
    )
    took = {name: 1e9 * timing.median / size for name, timing in timings.items()}
    return {
        "copied, GB/s": 8 / took["copy"],
        "read, GB/s": 4 / took["read"],
        # Of two programs that differ in nothing else.
        "multiply-adds, G/s": (MANY - FEW) / (took["many"] - took["few"]),
    }


if __name__ == "__main__":
    print(device())
    for what, rate in rates().items():
        print(f"{what:<20}{rate:>8.1f}")
