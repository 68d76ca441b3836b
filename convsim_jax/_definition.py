"""The definition: full cross-correlation of spatial filters, and its lags."""

import itertools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._checks import MAX_SPATIAL_AXES, accumulation_dtype, check_kernel


def cross_correlate(a: chex.Array, b: chex.Array) -> jax.Array:
    r"""Full cross-correlation of two spatial filters.

    .. math:: (a \star b)[l] = \sum_n a[n]\, b[n+l]

    Args:
      a: Filter of shape `(N_1, ..., N_d)`, with `d` from 1 to 3.
      b: Filter of shape `(P_1, ..., P_d)` and the dtype of `a`; mostly `P = N`.

    Returns:
      Array of shape `(N_1 + P_1 - 1, ..., N_d + P_d - 1)` and the dtype of `a`. Along
      each axis it runs over the lags `1 - N, ..., P - 1`: lag zero is at index `N - 1`.

    Raises:
      ValueError: The ranks or dtypes differ, a rank is not 1, 2 or 3, or a dtype is
        not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> cross_correlate(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0]))
      Array([ 6., 13.,  5.], dtype=float32)

    Source: Belmekki et al., arXiv 2411.03226, section 3.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.ndim != b.ndim or not 1 <= a.ndim <= MAX_SPATIAL_AXES:
        raise ValueError(
            f"a and b have shapes {a.shape} and {b.shape}; expected two filters of the "
            "same rank, 1, 2 or 3"
        )
    if a.dtype != b.dtype or not jnp.issubdtype(a.dtype, jnp.floating):
        raise ValueError(
            f"a and b have dtypes {a.dtype} and {b.dtype}; expected one floating-point "
            "dtype"
        )
    dtype = accumulation_dtype(a.dtype)
    # A convolution in JAX is a cross-correlation: out[k] = sum_n lhs[n + k] rhs[n].
    lags = lax.conv_general_dilated(
        b.astype(dtype)[None, None],
        a.astype(dtype)[None, None],
        window_strides=(1,) * a.ndim,
        padding=[(n - 1, n - 1) for n in a.shape],
        precision=lax.Precision.HIGHEST,
    )
    return lags[0, 0].astype(a.dtype)


def autocorrelation(kernel: chex.Array) -> tuple[jax.Array, jax.Array]:
    r"""Autocorrelation of every spatial filter of a kernel, over one half of the lags.

    .. math:: A[l, c, m] = (K[m,c] \star K[m,c])[l] = \sum_n K[n,c,m]\, K[n+l,c,m]

    It is symmetric, `A[-l] = A[l]`: sums over all lags are weighted sums over one half.

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
