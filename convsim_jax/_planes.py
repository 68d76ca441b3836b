"""Planes: two forms of the autocorrelation, that the objective runs on.

Both are lists of arrays `Y` of shape `(..., M)` with one weight each, such that

    CS(i,j) = sum over planes of weight * <Y[..., i], Y[..., j]>

for every two output channels i and j. `lag_planes` writes the autocorrelation out as
products of shifted taps: elementwise work that XLA fuses, and the fastest for small
windows. It unrolls over pairs of taps, so larger windows take `spectral_plane`, the power
spectrum as one matrix product.
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

Planes = Sequence[jax.Array]

# A 3x3 window has 45 products of taps, a 5x5 one 325: seconds of compilation.
MAX_UNROLLED_TAPS = 9

# Writes its arrays to memory, once. XLA would compute them again wherever they are used.
once: Callable = lax.optimization_barrier


class Form(NamedTuple):
    """How the similarities of a kernel are computed.

    Attributes:
      planes_of: Planes of a kernel.
      weights: The weight of each.
      kept: Whether planes are best computed once, not again in every pass.
    """

    planes_of: Callable[[jax.Array], Planes]
    weights: Sequence[float]
    kept: bool


def form_of(window: Sequence[int], *, cross: bool) -> Form:
    """The form for a window: of matched input channels, or across them."""
    if math.prod(window) <= MAX_UNROLLED_TAPS:
        matched = Form(lag_planes, lag_weights(window), kept=False)
    else:
        matched = Form(spectral_plane, [1.0], kept=True)
    if not cross:
        return matched
    return Form(partial(cross_plane, matched), [1.0], kept=True)


def cross_plane(matched: Form, kernel: jax.Array) -> Planes:
    """One plane `(L, M)` of weight 1: matched planes, summed over the input channels.

    They are added up a few rows at a time, which are near each other in memory.
    """
    planes = matched.planes_of(kernel)
    *_, C, M = planes[0].shape
    rows = math.gcd(C, 8)
    blocks = [Y.reshape(*Y.shape[:-2], C // rows, rows, M) for Y in planes]
    sums = add_up(once(add_up(blocks, -2)), -2)
    scaled = [w**0.5 * Y for w, Y in zip(matched.weights, sums, strict=True)]
    return [jnp.stack(scaled).reshape(-1, M)]


def lag_planes(kernel: jax.Array) -> Planes:
    """One plane of shape `(C, M)` for each of `half_lags`.

    The window is taken apart by `lax.split`, not by slices: then the derivative puts the
    taps together again by one concatenation, where it would add up padded arrays.
    """
    window, (C, M) = kernel.shape[:-2], kernel.shape[-2:]
    taps = math.prod(window)
    split = lax.split(kernel.reshape(taps, C, M), [1] * taps, axis=0)
    tap = {n: x.reshape(C, M) for n, x in zip(np.ndindex(*window), split, strict=True)}

    def at_lag(lag: tuple[int, ...]) -> jax.Array:
        shifted = {n: tuple(i + j for i, j in zip(n, lag, strict=True)) for n in tap}
        return sum_of([tap[n] * tap[m] for n, m in shifted.items() if m in tap])

    return [at_lag(lag) for lag in half_lags(window)]


def lag_weights(window: Sequence[int]) -> list[float]:
    """The weights of `lag_planes`: lag zero counts once, others for both signs."""
    return [1.0] + [2.0] * (len(half_lags(window)) - 1)


def spectral_plane(kernel: jax.Array) -> Planes:
    """The power spectrum: one plane `(F, C, M)` of weight 1.

    It holds frequency zero, and one of each other pair of frequencies. There are as many
    frequencies as lags, `2 N - 1` an axis, which is odd: only frequency zero is its own
    conjugate. The weight of a pair, two, and Parseval's factor, one over the number of
    all frequencies, are in the transform.
    """
    window, (C, M) = kernel.shape[:-2], kernel.shape[-2:]
    size = 2 * np.asarray(window) - 1
    frequencies = np.asarray(half_lags(window)) / size
    phase = 2 * np.pi * frequencies @ np.stack(list(np.ndindex(*window))).T
    scale = (np.asarray(lag_weights(window)) / size.prod()) ** 0.25
    transform = np.concatenate([f(phase) * scale[:, None] for f in (np.cos, np.sin)])
    real, imaginary = jnp.split(
        jnp.tensordot(
            jnp.asarray(transform, kernel.dtype),
            kernel.reshape(-1, C, M),
            axes=1,
            precision=lax.Precision.HIGHEST,
        ),
        2,
    )
    return [real * real + imaginary * imaginary]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def add_up(planes: Planes, axis: int) -> Planes:
    """Each plane summed over an axis, counted from the end.

    All by one reduction of many operands: XLA fuses it with what makes them.
    """
    zeros = tuple(jnp.zeros((), Y.dtype) for Y in planes)

    def add(a: Planes, b: Planes) -> Planes:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    return tuple(lax.reduce(tuple(planes), zeros, add, (planes[0].ndim + axis,)))


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
