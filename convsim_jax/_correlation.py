"""Full cross-correlation of spatial filters, and autocorrelation of a kernel.

`cross_correlate` is the definition, through `jax.lax.conv_general_dilated`.
`lag_planes` is the same sum written as products of shifted planes, one plane of
shape `(C, M)` a lag: elementwise work that XLA fuses, whose derivative is elementwise
work too. Everything above is built on it.
"""

import itertools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MAX_SPATIAL_AXES = 3


def check_kernel(kernel: chex.Array, name: str = "kernel") -> jax.Array:
    """Returns `kernel` as a JAX array, or says why it is not a conv kernel.

    Args:
      kernel: What should be a kernel of shape `(*window, C, M)`.
      name: What the error message calls it.

    Returns:
      The same values as a `jax.Array`.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.
    """
    kernel = jnp.asarray(kernel)
    if not 3 <= kernel.ndim <= 2 + MAX_SPATIAL_AXES:
        raise ValueError(
            f"{name} has shape {kernel.shape}, of rank {kernel.ndim}; expected "
            "(*window, C, M) with 1 to 3 spatial axes, so a rank of 3, 4 or 5"
        )
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise ValueError(
            f"{name} has dtype {kernel.dtype}; expected a floating-point dtype"
        )
    return kernel


def accumulation_dtype(dtype: chex.ArrayDType) -> np.dtype:
    """The dtype to add in: float32 for half precisions, `dtype` for the others."""
    return jnp.dtype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)


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


def half_lags(window: Sequence[int]) -> list[tuple[int, ...]]:
    """The lags of a window, one of each pair `l` and `-l`, lag zero first.

    >>> half_lags((2, 2))
    [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]
    """
    zero = (0,) * len(window)
    lags = itertools.product(*(range(1 - n, n) for n in window))
    return [lag for lag in lags if lag >= zero]


def lag_weights(window: Sequence[int]) -> list[float]:
    """How often each of `half_lags` counts: lag zero once, every other one twice."""
    return [1.0] + [2.0] * (len(half_lags(window)) - 1)


def lag_planes(kernel: jax.Array) -> list[jax.Array]:
    """The autocorrelation, as one plane of shape `(C, M)` for each of `half_lags`.

    The window is taken apart by `lax.split`, not by slices: then the derivative puts
    the planes together again by one concatenation instead of adding padded arrays.
    """
    window, (C, M) = kernel.shape[:-2], kernel.shape[-2:]
    size = math.prod(window)
    taps = lax.split(kernel.reshape(size, C, M), [1] * size, axis=0)
    plane = dict(
        zip(np.ndindex(*window), (tap.reshape(C, M) for tap in taps), strict=True)
    )

    def at_lag(lag: tuple[int, ...]) -> jax.Array:
        shifted = {n: tuple(i + j for i, j in zip(n, lag, strict=True)) for n in plane}
        return sum_of([plane[n] * plane[m] for n, m in shifted.items() if m in plane])

    return [at_lag(lag) for lag in half_lags(window)]


def sum_of(terms: Sequence[jax.Array]) -> jax.Array:
    """Elementwise sum of arrays, without the zero that `sum` would start from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


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
    dtype = accumulation_dtype(kernel.dtype)
    A = jnp.stack(lag_planes(kernel.astype(dtype)))
    weights = jnp.asarray(lag_weights(kernel.shape[:-2]), dtype)
    return A.astype(kernel.dtype), weights.astype(kernel.dtype)
