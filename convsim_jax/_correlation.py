"""The definition: full cross-correlation of spatial filters."""

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
      ValueError: It is no array, the rank is not 3, 4 or 5, an axis is empty, or the
        dtype is not floating.
    """
    try:
        kernel = jnp.asarray(kernel)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {kernel!r}; expected an array") from error
    if not 3 <= kernel.ndim <= 2 + MAX_SPATIAL_AXES:
        raise ValueError(
            f"{name} has shape {kernel.shape}, of rank {kernel.ndim}; expected "
            "(*window, C, M) with 1 to 3 spatial axes, so a rank of 3, 4 or 5"
        )
    if 0 in kernel.shape:
        raise ValueError(
            f"{name} has shape {kernel.shape}; expected at least one entry on every axis"
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
