"""Autocorrelation of a kernel, and two forms of it that the objective runs on.

Both forms are lists of planes `X` of shape `(n, C, M)` with one weight each, such that

    sum over all lags of A[i,c] A[j,c]  =  sum over planes of weight * X[c,i] X[c,j]

for every two output channels i and j. `lag_planes` writes the autocorrelation out as
products of shifted planes: elementwise work that XLA fuses, and the fastest for small
windows. It unrolls over pairs of taps, so larger windows take `spectral_planes`, the
power spectrum as one matrix product.
"""

import itertools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convsim_jax._correlation import accumulation_dtype, check_kernel

# A 3x3 window has 45 products of taps, a 5x5 one 325: seconds of compilation.
MAX_UNROLLED_TAPS = 9


def autocorrelation(kernel: chex.Array) -> tuple[jax.Array, jax.Array]:
    r"""Autocorrelation of every spatial filter of a kernel, over one half of the lags.

    .. math:: A[l, c, m] = (K[m,c] \star K[m,c])[l] = \sum_n K[n,c,m]\, K[n+l,c,m]

    It is symmetric, `A[-l] = A[l]`, so that one half of the lags says all; sums over all
    lags are sums over these lags with weights.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.

    Returns:
      `(A, weights)`: `A` of shape `(L, C, M)` and the kernel's dtype, where
      `L = (prod(2 * N - 1) + 1) / 2` and lag zero comes first; `weights` of shape
      `(L,)`: 1 for lag zero and 2 for every other lag.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> A, weights = autocorrelation(jnp.array([1.0, 2.0]).reshape(2, 1, 1))
      >>> A.ravel(), weights
      (Array([5., 2.], dtype=float32), Array([1., 2.], dtype=float32))

    Source: Belmekki et al., arXiv 2411.03226, section 3; symmetry of autocorrelations.
    """
    kernel = check_kernel(kernel)
    window = kernel.shape[:-2]
    lags = half_lags(window)
    weights = jnp.asarray([1.0] + [2.0] * (len(lags) - 1), kernel.dtype)
    A = _products_by_lag(kernel, jnp.asarray(lags) + jnp.asarray(window)[None] - 1)
    return A, weights


@jax.jit
def _products_by_lag(kernel: jax.Array, starts: jax.Array) -> jax.Array:
    wide = kernel.astype(accumulation_dtype(kernel.dtype))
    padded = jnp.pad(wide, [(n - 1, n - 1) for n in wide.shape[:-2]] + [(0, 0)] * 2)

    def at(start: jax.Array) -> jax.Array:
        shifted = lax.dynamic_slice(padded, [*start, 0, 0], wide.shape)
        return jnp.sum(wide * shifted, axis=tuple(range(wide.ndim - 2)))

    return lax.map(at, starts).astype(kernel.dtype)


def half_lags(window: Sequence[int]) -> list[tuple[int, ...]]:
    """The lags of a window, one of each pair `l` and `-l`, lag zero first.

    >>> half_lags((2, 2))
    [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]
    """
    zero = (0,) * len(window)
    lags = itertools.product(*(range(1 - n, n) for n in window))
    return [lag for lag in lags if lag >= zero]


def planes_of_kernel(kernel: jax.Array) -> list[jax.Array]:
    """The form of the autocorrelation that suits the kernel's window."""
    planes = lag_planes if _is_small(kernel.shape[:-2]) else spectral_planes
    return planes(kernel)


def plane_weights(window: Sequence[int]) -> list[float]:
    """The weights of `planes_of_kernel`: 1 for lag or frequency zero, 2 for others."""
    return [1.0] + [2.0] * (len(half_lags(window)) - 1 if _is_small(window) else 1)


def _is_small(window: Sequence[int]) -> bool:
    return math.prod(window) <= MAX_UNROLLED_TAPS


def lag_planes(kernel: jax.Array) -> list[jax.Array]:
    """One plane for each of `half_lags`.

    The window is taken apart by `lax.split`, not by slices: then the derivative puts the
    taps together again by one concatenation, where it would add up padded arrays.
    """
    window, (C, M) = kernel.shape[:-2], kernel.shape[-2:]
    taps = math.prod(window)
    split = lax.split(kernel.reshape(taps, C, M), [1] * taps, axis=0)
    tap = dict(zip(np.ndindex(*window), split, strict=True))

    def at_lag(lag: tuple[int, ...]) -> jax.Array:
        shifted = {n: tuple(i + j for i, j in zip(n, lag, strict=True)) for n in tap}
        return sum_of([tap[n] * tap[m] for n, m in shifted.items() if m in tap])

    return [at_lag(lag) for lag in half_lags(window)]


def spectral_planes(kernel: jax.Array) -> list[jax.Array]:
    """The power spectrum: frequency zero, and one of each other pair of frequencies.

    There are as many frequencies as lags, `2 N - 1` an axis, which is odd: only frequency
    zero is its own conjugate. Parseval's factor, one over their number, is in the
    transform.
    """
    window, (C, M) = kernel.shape[:-2], kernel.shape[-2:]
    size = 2 * np.asarray(window) - 1
    frequencies = np.asarray(half_lags(window)) / size
    phase = 2 * np.pi * frequencies @ np.stack(list(np.ndindex(*window))).T
    scale = size.prod() ** -0.25
    transform = scale * np.concatenate([np.cos(phase), np.sin(phase)])
    real, imaginary = jnp.split(
        jnp.matmul(
            jnp.asarray(transform, kernel.dtype),
            kernel.reshape(-1, C * M),
            precision=lax.Precision.HIGHEST,
        ).reshape(-1, C, M),
        2,
    )
    power = real * real + imaginary * imaginary
    return [power[:1], power[1:]]


def sum_of(terms: Sequence[jax.Array]) -> jax.Array:
    """Elementwise sum of arrays, without the zero that `sum` would start from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
