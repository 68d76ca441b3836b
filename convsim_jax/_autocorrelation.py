"""Autocorrelation of a kernel."""

import itertools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._correlation import accumulation_dtype, check_kernel


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
