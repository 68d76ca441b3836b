r"""Orthogonality penalties that Convolutional Similarity is compared with.

Each takes one conv kernel of shape `(*window, C, M)`, whose flattened kernels are the
columns of

    W = kernel.reshape(prod(window) * C, M)

so `W.T @ W` holds the inner products of the M kernels: lag zero alone, except in
`convolutional_orthogonality`. Where M exceeds the number of rows no penalty reaches 0.
Unlike Convolutional Similarity, all of them also pull the kernels' norms to 1.

That of a grouped convolution is a stack of unrelated kernels: split its last axis into
`(groups, M // groups)` and `jax.vmap` the penalty over the groups.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import chex
import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._checks import (
    accumulation_dtype,
    check_count,
    check_kernel,
    check_strides,
)
from convsim_jax._definition import half_lags
from convsim_jax._norms import inverse_sqrt
from convsim_jax._xla import elementwise_sum, in_auto_axes, replicated

_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def soft_orthogonality(kernel: chex.Array) -> jax.Array:
    r"""Soft orthogonality (SO).

    .. math:: \|W^\top W - I\|_F^2

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.

    Returns:
      Scalar of the kernel's dtype. Its least value is `max(0, M - rows of W)`.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[1.0, 2.0], [0.0, 1.0]]).reshape(2, 1, 2)
      >>> soft_orthogonality(kernel)  # W^T W - I = [[0, 2], [2, 4]]
      Array(24., dtype=float32)

    Source: Bansal et al. 2018, arXiv 1810.09102, section 3, without its factor lambda.
    """
    kernel = check_kernel(kernel)
    return _in_auto_axes(_squared_error, kernel)


def double_soft_orthogonality(kernel: chex.Array) -> jax.Array:
    r"""Double soft orthogonality (DSO).

    .. math:: \|W^\top W - I_M\|_F^2 + \|W W^\top - I_R\|_F^2
              = 2\, \|W^\top W - I_M\|_F^2 + R - M

    with R the number of rows of W: DSO has twice the gradient of SO, for every shape.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.

    Returns:
      Scalar of the kernel's dtype. Its least value is `abs(R - M)`.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> double_soft_orthogonality(jnp.eye(3)[:, None, :2])
      Array(1., dtype=float32)

    Source: Bansal et al. 2018, arXiv 1810.09102, section 3, without its factor lambda;
    the identity is the lemma of Wang et al. 2020, arXiv 1911.12207, section 3.
    """
    kernel = check_kernel(kernel)
    M = kernel.shape[-1]
    R = math.prod(kernel.shape[:-1])
    return _in_auto_axes(lambda k: 2 * _squared_error(k) + (R - M), kernel)


def mutual_coherence(kernel: chex.Array) -> jax.Array:
    r"""Mutual coherence (MC), as a penalty.

    .. math:: \|W^\top W - I\|_\infty = \max_{i,j} |(W^\top W - I)_{ij}|

    As in the paper, the diagonal counts and the columns are not normalized: this is the
    mutual coherence of W only where its columns have norm 1.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.

    Returns:
      Scalar of the kernel's dtype.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[1.0, 2.0], [0.0, 1.0]]).reshape(2, 1, 2)
      >>> mutual_coherence(kernel)  # W^T W - I = [[0, 2], [2, 4]]
      Array(4., dtype=float32)

    Source: Bansal et al. 2018, arXiv 1810.09102, section 3, without its factor lambda.
    """
    kernel = check_kernel(kernel)
    return _in_auto_axes(_largest_error, kernel)


def spectral_restricted_isometry(
    kernel: chex.Array, *, iterations: int = 2, key: chex.PRNGKey | None = None
) -> jax.Array:
    r"""Spectral restricted isometry property penalty (SRIP), by power iteration.

    .. math:: \sigma(E) \approx \frac{\|E^t v\|}{\|E^{t-1} v\|}, \qquad E = W^\top W - I

    A lower bound that grows to the spectral norm of E with t. The derivative is taken
    through all steps. The released code takes t = 2 and a random v.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.
      iterations: The number t of products by E, at least 1. Static under `jax.jit`.
      key: Random key for v, M normal variates; by default that of every call.

    Returns:
      Scalar of the kernel's dtype; at convergence at least 1 where W is overcomplete.

    Raises:
      ValueError: The rank is not 3, 4 or 5, the dtype is not floating, or `iterations`
        is not a positive int.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[2.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 2)
      >>> spectral_restricted_isometry(kernel)  # W^T W - I = [[3, 0], [0, 0]]
      Array(3., dtype=float32)

    Source: Bansal et al. 2018, arXiv 1810.09102, section 3, without its factor lambda.
    """
    kernel = check_kernel(kernel)
    iterations = check_count(iterations, "iterations")
    key = jax.random.key(0) if key is None else key
    # In float32 for every dtype, which would draw other numbers otherwise.
    start = jax.random.normal(key, kernel.shape[-1:], jnp.float32)
    norm = partial(_power_iteration, iterations=iterations)
    return _in_auto_axes(norm, kernel, start)


def convolutional_orthogonality(
    kernel: chex.Array, *, stride: int | Sequence[int] = 1
) -> jax.Array:
    r"""Convolutional orthogonality (OCNN): kernels orthonormal to their own shifts.

    .. math:: \|\mathrm{Conv}(K, K, \mathrm{padding}=P, \mathrm{stride}=S) - I_0\|_F^2
              = \sum_l \sum_{i,j}
                \bigl(\langle K_i, K_j \text{ shifted by } l \rangle
                - \delta_{ij} \delta_{l0}\bigr)^2

    over the lags l that are multiples of the stride S, up to `P = (k - 1) // S * S`
    along an axis of k taps: all lags at which two output positions overlap. The
    convolution's matrix has orthonormal rows where it is 0. The paper's column form, for
    `M > C * prod(S)`, differs by a constant. With a stride of at least k along each axis
    it equals `soft_orthogonality`.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.
      stride: The convolution's stride: an int, or one for each axis of the window.

    Returns:
      Scalar of the kernel's dtype.

    Raises:
      ValueError: The rank is not 3, 4 or 5, the dtype is not floating, or `stride` is
        not one positive int, or one for each axis.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([0.6, 0.8]).reshape(2, 1, 1)  # of norm 1
      >>> print(convolutional_orthogonality(kernel).round(4))  # 2 * (0.6 * 0.8) ** 2
      0.4608
      >>> print(convolutional_orthogonality(kernel, stride=2).round(4))
      0.0

    Source: Wang et al. 2020, arXiv 1911.12207, section 3, without its factor lambda. The
    released code takes the square root of this.
    """
    kernel = check_kernel(kernel)
    strides = check_strides(stride, kernel.shape[:-2], name="stride")
    return _in_auto_axes(partial(_self_convolution_error, strides=strides), kernel)


def _in_auto_axes(penalty: Callable, kernel: jax.Array, *more: jax.Array) -> jax.Array:
    """The penalty of a checked kernel, in its dtype."""
    return in_auto_axes(penalty, kernel, replicated, *more).astype(kernel.dtype)


def _columns(kernel: jax.Array) -> jax.Array:
    """W: one column for each flattened kernel, in the accumulation dtype."""
    M = kernel.shape[-1]
    return kernel.reshape(-1, M).astype(accumulation_dtype(kernel.dtype))


def _gram_error(kernel: jax.Array) -> jax.Array:
    """`W^T W - I`."""
    W = _columns(kernel)
    return _matmul(W.T, W) - jnp.eye(W.shape[1], dtype=W.dtype)


def _squared_error(kernel: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(_gram_error(kernel)))


def _largest_error(kernel: jax.Array) -> jax.Array:
    error = _gram_error(kernel)
    # Not the largest of jnp.abs: its derivative at 0, the minimum, is 1.
    return jnp.maximum(jnp.max(error), -jnp.min(error))


@partial(jax.jit, static_argnames="iterations")
def _power_iteration(kernel: jax.Array, start: jax.Array, iterations: int) -> jax.Array:
    W = _columns(kernel)
    start = start.astype(W.dtype)

    def product_by_error(v: jax.Array) -> jax.Array:
        return _matmul(W.T, _matmul(W, v)) - v

    def step(_: int, v: jax.Array) -> jax.Array:
        v = product_by_error(v)
        return v * inverse_sqrt(jnp.sum(v * v))

    v = lax.fori_loop(0, iterations - 1, step, start / jnp.linalg.norm(start))
    square = jnp.sum(jnp.square(product_by_error(v)))
    return square * inverse_sqrt(square)


@partial(jax.jit, static_argnames="strides")
def _self_convolution_error(kernel: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    _, *lags = (
        lag
        for lag in half_lags(kernel.shape[:-2])
        if not any(offset % step for offset, step in zip(lag, strides, strict=True))
    )
    shifted = [2 * jnp.sum(jnp.square(_shifted_gram(kernel, lag))) for lag in lags]
    return elementwise_sum([_squared_error(kernel), *shifted])


def _shifted_gram(kernel: jax.Array, lag: Sequence[int]) -> jax.Array:
    """`sum_n K[n]^T K[n + lag]`, over the taps n for which both are in the window."""

    def overlap(lag: Sequence[int]) -> jax.Array:
        axes = zip(lag, kernel.shape[:-2], strict=True)
        taps = tuple(slice(max(0, -offset), n - max(0, offset)) for offset, n in axes)
        return _columns(kernel[taps])

    return _matmul(overlap(lag).T, overlap([-offset for offset in lag]))
