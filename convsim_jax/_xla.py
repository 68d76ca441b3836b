"""What is written for the sake of XLA's compilers: each trick, why, and on which backend.

None of it changes a value: without this file the library is right, and slower.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

Arrays = Sequence[jax.Array]
FEW = 32  # rows that are added up one by one

# All backends. Arrays that are written to memory here: XLA neither computes them again
# wherever they are used, nor finds that what comes after shares anything with what came
# before, for which it would write more than these.
materialize: Callable = lax.optimization_barrier


def default_is_cpu() -> bool:
    """What stands for the backend that is compiled for where a form for each costs time.

    `platform_dependent` traces all of them.
    """
    return jax.default_backend() == "cpu"


def one_after(value: jax.Array) -> jax.Array:
    """1, once the value is known, whatever it is: what is multiplied by it comes later.

    XLA's CPU backend orders a program by what depends on what, and would begin with all
    layers: their gradients then are there at once, in fresh memory, which takes longer
    than to compute them. A barrier is gone before that.
    """
    return 1 + 0 * (value != value).astype(value.dtype)


def materialize_on(backend: str, arrays: Any) -> Any:
    """Others compute them where they are used."""
    forms = {backend: materialize}
    return lax.platform_dependent(arrays, **forms, default=lambda x: x)


def stored_on_cpu(stored: Any, computed: Any) -> Any:
    """Of two equal trees the one that a CPU reads; others compute it where it is used."""
    return lax.platform_dependent(
        stored, computed, cpu=lambda x, _: x, default=lambda _, y: y
    )


def elementwise_sum(terms: Arrays) -> jax.Array:
    """Sum of arrays of one shape, without the zero that `sum` would start from."""
    return sum(terms[1:], start=terms[0])


def _linear(plain: Callable, **forms: Callable) -> Callable:
    """`plain`, linear in its first argument, in another form on some backends.

    The backend is the one that is compiled for. Derivatives are those of `plain`.
    """

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def function(arrays: Arrays, axis: int) -> Any:
        by_backend = {name: partial(form, axis=axis) for name, form in forms.items()}
        default = partial(plain, axis=axis)
        return lax.platform_dependent(tuple(arrays), **by_backend, default=default)

    @function.defjvp
    def derivative(axis: int, arrays: tuple, tangents: tuple) -> tuple[Any, Any]:
        return function(*arrays, axis), plain(tangents[0], axis)

    return function


def _reduce(arrays: Arrays, axis: int) -> Arrays:
    """By one reduction of many operands, which is fused with what makes them."""
    zeros = [jnp.zeros((), x.dtype) for x in arrays]

    def add(a: Arrays, b: Arrays) -> Arrays:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    axes = (arrays[0].ndim + axis,)
    return tuple(lax.reduce(tuple(arrays), tuple(zeros), add, axes))


def _unchanged(arrays: Arrays, axis: int) -> Arrays:
    return tuple(arrays)


def _write_on_cpu(arrays: Arrays, axis: int) -> Arrays:
    """As sums over each array and a zero."""
    if len(arrays) == 1:
        return tuple(arrays)
    shape = (2, *arrays[0].shape)
    zeros = jnp.zeros(shape, arrays[0].dtype)
    first = lax.broadcasted_iota(np.int32, shape, 0) == 0
    pairs = [lax.select(first, lax.broadcast(x, (2,)), zeros) for x in arrays]
    return _reduce(pairs, -len(shape))


# The same arrays, of one shape, all computed in one pass. XLA's CPU backend computes an
# array a pass, with all that it shares with others, but for a reduction of many operands.
_in_one_pass = _linear(_unchanged, cpu=_write_on_cpu)
in_one_pass: Callable = partial(_in_one_pass, axis=0)


def _sum_stack(arrays: Arrays, axis: int) -> jax.Array:
    return jnp.stack(arrays).sum(axis)


def _sums_of_arrays(arrays: Arrays, axis: int) -> jax.Array:
    return jnp.stack(_reduce(arrays, axis))


# The stack of the sums of several arrays over axis -1 or -2, in one pass over what all
# are made of. A GPU has no shared memory for a reduction of many operands over rows, and
# stores some of them before one over columns: there it is one reduction of their stack.
_sums = _linear(_sum_stack, cpu=_sums_of_arrays, tpu=_sums_of_arrays)
column_sums: Callable = partial(_sums, axis=-1)


def row_sums(planes_of: Callable[[jax.Array], Arrays], kernel: jax.Array) -> jax.Array:
    """The stack of the sums over axis -2 of the planes of a kernel `(taps, C, M)`.

    A CPU has no fast reduction of many operands over rows. Planes of even and odd
    channels are added up and written; whole, they would be more than the kernel, and
    successive channels would lie on different devices where channels are sharded.
    """
    taps, C, M = kernel.shape

    def of_halves(kernel: jax.Array) -> jax.Array:
        parts = math.gcd(C, 2)
        halves = jnp.split(kernel.reshape(taps, -1, parts, M), parts, axis=2)
        planes = zip(*map(planes_of, halves), strict=True)
        written = in_one_pass([elementwise_sum(Y) for Y in planes])
        return jnp.stack([Y.sum((-3, -2)) for Y in written])

    def of_whole(kernel: jax.Array) -> jax.Array:
        return _sums(planes_of(kernel), -2)

    return lax.platform_dependent(kernel, cpu=of_halves, default=of_whole)


def _column_sum_of_stack(arrays: Arrays, axis: int) -> jax.Array:
    """XLA would make one reduction for each array if it saw the second sum.

    That of few rows is written out, to be computed where it is used.
    """
    rows = materialize(jnp.stack(arrays).sum(-2)).reshape(-1, arrays[0].shape[-1])
    return elementwise_sum(list(rows)) if len(rows) <= FEW else rows.sum(0)


def _column_sum_on_cpu(arrays: Arrays, axis: int) -> jax.Array:
    """Two arrays are written: XLA's library, which sums one, would have all written."""
    halves = [elementwise_sum(arrays[i::2]) for i in range(min(2, len(arrays)))]
    axes = tuple(range(arrays[0].ndim - 1))
    return elementwise_sum([x.sum(axes) for x in _write_on_cpu(halves, 0)])


def _column_sum_on_tpu(arrays: Arrays, axis: int) -> jax.Array:
    return elementwise_sum(arrays).sum(tuple(range(arrays[0].ndim - 1)))


_column_sum = _linear(
    _column_sum_of_stack, cpu=_column_sum_on_cpu, tpu=_column_sum_on_tpu
)


def column_sum(arrays: Arrays) -> jax.Array:
    """All arrays added up, and over all axes but the last."""
    if arrays[0].size == arrays[0].shape[-1]:
        return elementwise_sum(arrays).reshape(-1)
    return _column_sum(arrays, 0)


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
