"""Planes: two forms of the autocorrelation, that the objective runs on.

Both are lists of arrays `Y` of shape `(..., M)` with one weight each, such that

    CS(i,j) = sum over planes of weight * <Y[..., i], Y[..., j]>

for every two output channels i and j. `lag_planes` writes the autocorrelation out as
products of shifted taps: elementwise work that XLA fuses, and the fastest for small
windows. It unrolls over pairs of taps, so larger windows take `spectral_plane`, the power
spectrum as one matrix product.

The kernel comes here as its taps, of shape `(taps, C, M)`, and with it a scale of its
channels, of shape `(1, 1, M)`: multiplied tap by tap, a scaled kernel is never written.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convsim_jax._autocorrelation import half_lags
from convsim_jax._blocks import map_blocks, number_of_blocks, sum_over_blocks

Planes = Sequence[jax.Array]
Scale = jax.Array | float

# A 3x3 window has 45 products of taps, a 5x5 one 325: seconds of compilation.
MAX_UNROLLED_TAPS = 9

# Materialises its arrays: XLA neither computes them again wherever they are used, nor
# finds that what comes after shares anything else with what came before.
once: Callable = lax.optimization_barrier


class Form(NamedTuple):
    """How the similarities of a kernel are computed.

    Attributes:
      planes_of: Planes of a kernel, times a scale if one is given.
      gradient_of: Its transpose at a kernel: from the derivative by each plane to the
        derivative by the kernel, and the inner product of that and the kernel.
      weights: The weight of each plane.
      kept: Whether planes are best computed once, not again in every pass.
      blocks: Number of blocks of input channels, to be computed one by one.
    """

    planes_of: Callable[..., Planes]
    gradient_of: Callable[..., tuple[jax.Array, jax.Array]]
    weights: Sequence[float]
    kept: bool
    blocks: int = 1


def form_of(kernel: jax.Array, *, cross: bool, groups: int = 1) -> Form:
    """The form for a kernel `(*window, C, M)`: of matched channels, or across them."""
    window = kernel.shape[:-2]
    if math.prod(window) <= MAX_UNROLLED_TAPS:
        of_lags = partial(lag_planes, window), partial(lag_gradient, window)
        matched = Form(*of_lags, lag_weights(window), kept=False)
    else:
        of_spectrum = partial(spectral_plane, window), partial(spectral_gradient, window)
        blocks = number_of_blocks(kernel, groups)
        matched = Form(*of_spectrum, [1.0], kept=True, blocks=blocks)
    if not cross:
        return matched
    of_sums = partial(cross_plane, matched), partial(cross_gradient, matched)
    return Form(*of_sums, [1.0], kept=True)


def cross_plane(matched: Form, kernel: jax.Array, scale: Scale = 1.0) -> Planes:
    """One plane `(L, 1, M)` of weight 1: matched planes, summed over input channels."""
    of_block = partial(_cross_plane, matched, scale)
    return sum_over_blocks(of_block, kernel, matched.blocks)


def _cross_plane(matched: Form, scale: Scale, kernel: jax.Array) -> Planes:
    """`cross_plane` of one block.

    Planes of even and odd channels are added up first: written whole, they would be more
    than the kernel. Halves of sharded channels would lie on different devices.
    """
    taps, C, M = kernel.shape
    parts = math.gcd(C, 2)
    halves = jnp.split(kernel.reshape(taps, -1, parts, M), parts, axis=2)
    scale = jnp.reshape(scale, (1, 1, 1, -1))
    planes = zip(*(matched.planes_of(half, scale) for half in halves), strict=True)
    sums = [Y.sum((1, 2)) for Y in written([sum_of(Y) for Y in planes])]
    scaled = [w**0.5 * Y for w, Y in zip(matched.weights, sums, strict=True)]
    return [jnp.stack(scaled).reshape(-1, 1, M)]


def cross_gradient(
    matched: Form, slopes: Planes, kernel: jax.Array, scale: Scale = 1.0
) -> tuple[jax.Array, jax.Array]:
    """`cross_plane` transposed: every input channel has the slopes of the sum."""
    rows = jnp.split(slopes[0], len(matched.weights))
    scaled = [w**0.5 * row for w, row in zip(matched.weights, rows, strict=True)]
    of_block = partial(matched.gradient_of, scaled, scale=scale)
    return map_blocks(of_block, kernel, matched.blocks)


def lag_planes(window: Sequence[int], kernel: jax.Array, scale: Scale = 1.0) -> Planes:
    """One plane of shape `(1, C, M)` for each of `half_lags`: `sum_n K[n] K[n + l]`."""
    tap = _taps(window, kernel, scale)

    def at_lag(lag: tuple[int, ...]) -> jax.Array:
        shifted = {n: tuple(i + j for i, j in zip(n, lag, strict=True)) for n in tap}
        return sum_of([tap[n] * tap[m] for n, m in shifted.items() if m in tap])

    return [at_lag(lag) for lag in half_lags(window)]


def lag_gradient(
    window: Sequence[int], slopes: Planes, kernel: jax.Array, scale: Scale = 1.0
) -> tuple[jax.Array, jax.Array]:
    """`lag_planes` transposed: tap n is `sum over l slope[l] (K[n + l] + K[n - l])`."""
    tap = _taps(window, kernel, scale)
    slope = {}
    for lag, x in zip(half_lags(window), slopes, strict=True):
        slope[tuple(-i for i in lag)] = slope[lag] = x
    zero = (0,) * len(window)
    slope[zero] = 2 * slope[zero]

    def at_tap(n: tuple[int, ...]) -> jax.Array:
        lags = {m: tuple(i - j for i, j in zip(m, n, strict=True)) for m in tap}
        return scale * sum_of([slope[lag] * tap[m] for m, lag in lags.items()])

    gradient = [at_tap(n) for n in tap]
    taps = _taps(window, kernel).values()
    products = sum_of([x * y for x, y in zip(taps, gradient, strict=True)])
    *gradient, products = written([*gradient, products])
    return jnp.concatenate(gradient), products.sum()


def _taps(
    window: Sequence[int], kernel: jax.Array, scale: Scale = 1.0
) -> dict[tuple[int, ...], jax.Array]:
    taps = lax.split(kernel, [1] * len(kernel), axis=0)
    return dict(zip(np.ndindex(*window), [scale * x for x in taps], strict=True))


def lag_weights(window: Sequence[int]) -> list[float]:
    """The weights of `lag_planes`: lag zero counts once, others for both signs."""
    return [1.0] + [2.0] * (len(half_lags(window)) - 1)


def spectral_plane(
    window: Sequence[int], kernel: jax.Array, scale: Scale = 1.0
) -> Planes:
    """The power spectrum: one plane `(F, C, M)` of weight 1.

    It holds frequency zero, and one of each other pair of frequencies. There are as many
    frequencies as lags, `2 N - 1` an axis, which is odd: only frequency zero is its own
    conjugate. The weight of a pair, two, and Parseval's factor, one over the number of
    all frequencies, are in the transform.
    """
    real, imaginary = _spectrum(window, scale * kernel)
    return [real * real + imaginary * imaginary]


def spectral_gradient(
    window: Sequence[int], slopes: Planes, kernel: jax.Array, scale: Scale = 1.0
) -> tuple[jax.Array, jax.Array]:
    """`spectral_plane` transposed."""
    real, imaginary = _spectrum(window, scale * kernel)
    slope = 2 * slopes[0]
    by_part = jnp.concatenate([slope * real, slope * imaginary])
    transform = _transform(window, kernel.dtype)
    gradient = scale * jnp.tensordot(
        transform.T, by_part, axes=1, precision=lax.Precision.HIGHEST
    )
    return gradient, jnp.sum(kernel * gradient)


def _spectrum(window: Sequence[int], kernel: jax.Array) -> Sequence[jax.Array]:
    """The real and the imaginary part, each of shape `(F, C, M)`."""
    transform = _transform(window, kernel.dtype)
    parts = jnp.tensordot(transform, kernel, axes=1, precision=lax.Precision.HIGHEST)
    return jnp.split(parts, 2)


def _transform(window: Sequence[int], dtype: jnp.dtype) -> jax.Array:
    size = 2 * np.asarray(window) - 1
    frequencies = np.asarray(half_lags(window)) / size
    phase = 2 * np.pi * frequencies @ np.stack(list(np.ndindex(*window))).T
    scale = (np.asarray(lag_weights(window)) / size.prod()) ** 0.25
    parts = [f(phase) * scale[:, None] for f in (np.cos, np.sin)]
    return jnp.asarray(np.concatenate(parts), dtype)


@jax.custom_jvp
def written(arrays: Planes) -> Planes:
    """The same arrays, of one shape, all written to memory in one pass.

    XLA's CPU backend computes an array a pass, with all that it shares with others, but
    for a reduction of many operands: here over each array and a zero. Other backends
    compute several arrays in one pass.
    """
    return lax.platform_dependent(tuple(arrays), cpu=_reduced, default=lambda x: x)


def _reduced(arrays: Planes) -> Planes:
    if len(arrays) == 1:
        return tuple(arrays)
    shape = (2, *arrays[0].shape)
    zeros = jnp.zeros(shape, arrays[0].dtype)
    first = lax.broadcasted_iota(np.int32, shape, 0) == 0
    return add_up(
        [lax.select(first, lax.broadcast(x, (2,)), zeros) for x in arrays], -len(shape)
    )


@written.defjvp
def _written_jvp(arrays: tuple[Planes], tangents: tuple[Planes]) -> tuple[Planes, Planes]:
    return written(*arrays), tuple(tangents[0])


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def add_up(planes: Planes, axis: int) -> Planes:
    """Each plane summed over an axis, counted from the end.

    All by one reduction of many operands: XLA fuses it with what makes them.
    """
    zeros = [jnp.zeros((), Y.dtype) for Y in planes]
    return tuple(lax.reduce(tuple(planes), tuple(zeros), _add, (planes[0].ndim + axis,)))


def _add(a: Planes, b: Planes) -> Planes:
    return tuple(x + y for x, y in zip(a, b, strict=True))


@add_up.defjvp
def _add_up_jvp(
    axis: int, planes: tuple[Planes], tangents: tuple[Planes]
) -> tuple[Planes, Planes]:
    return add_up(*planes, axis), tuple(X.sum(axis) for X in tangents[0])


def sum_of(terms: Sequence[jax.Array]) -> jax.Array:
    """Elementwise sum of arrays, without the zero that `sum` would start from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
