"""What is written for the sake of XLA's compilers: each trick, why, and on which backend.

None of it changes a value: without this file the library is right, and slower.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

Arrays = Sequence[jax.Array]

# All backends. Arrays that are written to memory here: XLA neither computes them again
# wherever they are used, nor finds that what comes after shares anything with what came
# before, for which it would write more than these.
materialize: Callable = lax.optimization_barrier


def elementwise_sum(terms: Arrays) -> jax.Array:
    """Sum of arrays of one shape, without the zero that `sum` would start from."""
    return sum(terms[1:], start=terms[0])


@jax.custom_jvp
def in_one_pass(arrays: Arrays) -> Arrays:
    """The same arrays, of one shape, all written to memory in one pass.

    XLA's CPU backend computes an array a pass, with all that it shares with others, but
    for a reduction of many operands: here over each array and a zero. Other backends
    compute several arrays in one pass.
    """
    return lax.platform_dependent(tuple(arrays), cpu=_reduced, default=lambda x: x)


def _reduced(arrays: Arrays) -> Arrays:
    if len(arrays) == 1:
        return tuple(arrays)
    shape = (2, *arrays[0].shape)
    zeros = jnp.zeros(shape, arrays[0].dtype)
    first = lax.broadcasted_iota(np.int32, shape, 0) == 0
    pairs = [lax.select(first, lax.broadcast(x, (2,)), zeros) for x in arrays]
    return sums_in_one_pass(pairs, -len(shape))


@in_one_pass.defjvp
def _in_one_pass_jvp(arrays: tuple, tangents: tuple) -> tuple[Arrays, Arrays]:
    return in_one_pass(*arrays), tuple(tangents[0])


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def sums_in_one_pass(arrays: Arrays, axis: int) -> Arrays:
    """Each array summed over an axis, counted from the end.

    All by one reduction of many operands: XLA fuses it with what makes them.
    """
    zeros = [jnp.zeros((), x.dtype) for x in arrays]
    return tuple(lax.reduce(tuple(arrays), tuple(zeros), _add, (arrays[0].ndim + axis,)))


def _add(a: Arrays, b: Arrays) -> Arrays:
    return tuple(x + y for x, y in zip(a, b, strict=True))


@sums_in_one_pass.defjvp
def _sums_in_one_pass_jvp(
    axis: int, arrays: tuple, tangents: tuple
) -> tuple[Arrays, Arrays]:
    return sums_in_one_pass(*arrays, axis), tuple(x.sum(axis) for x in tangents[0])


def in_auto_axes(
    function: Callable, kernel: jax.Array, out_specs: Any, *arguments: jax.Array
) -> Any:
    """`function(kernel, *arguments)`, with shardings left to XLA inside.

    All backends, on a mesh with Explicit axes: they have no rule for the padding of a
    sharded axis, for one. Shardings of the results are what `out_specs` makes of the
    kernel's.
    """
    sharding = jax.typeof(kernel).sharding
    if AxisType.Explicit not in (sharding.mesh.axis_types or ()):
        return function(kernel, *arguments)
    in_auto = jax.sharding.auto_axes(function, out_sharding=out_specs(sharding.spec))
    return in_auto(kernel, *arguments)


def replicated(spec: PartitionSpec) -> PartitionSpec:
    """The same on every device, whatever the kernel's sharding is."""
    return PartitionSpec()
