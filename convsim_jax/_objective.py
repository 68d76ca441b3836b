r"""Convolutional Similarity of one kernel, and the matrices beside it.

For output channels i and j of a kernel, with `A` its autocorrelation,

    matched channels (the paper):  CS(i,j) = sum_c   |K[i,c] * K[j,c]|^2
                                           = sum_c   <A[i,c], A[j,c]>
    cross channels:                CS(i,j) = sum_c,d |K[i,c] * K[j,d]|^2
                                           = <sum_c A[i,c], sum_d A[j,d]>

where `*` is the full cross-correlation. The inner products are over all lags. So every
pair costs no more than every channel: the sum over all pairs is half the square of the
sum less half the sum of the squares.
"""

from functools import partial
from typing import Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from convsim_jax._autocorrelation import planes_and_weights, sum_of
from convsim_jax._correlation import accumulation_dtype, check_kernel

Pairs = Literal["all", "adjacent"]
Channels = Literal["matched", "cross"]


class Objective(NamedTuple):
    """Which similarity of a kernel is meant: static, hashable, checked once."""

    pairs: Pairs = "all"
    channels: Channels = "matched"
    normalize: bool = False

    def check(self) -> "Objective":
        """Returns itself, or raises a ValueError that names the wrong option."""
        for name, choices in (("pairs", Pairs), ("channels", Channels)):
            value = getattr(self, name)
            if value not in get_args(choices):
                expected = " or ".join(repr(choice) for choice in get_args(choices))
                raise ValueError(f"{name} is {value!r}; expected {expected}")
        if not isinstance(self.normalize, bool):
            raise ValueError(f"normalize is {self.normalize!r}; expected True or False")
        return self


def check_groups(
    kernel: jax.Array, feature_group_count: int, name: str = "kernel"
) -> int:
    """Returns `feature_group_count`, or raises a ValueError if it cannot be."""
    M = kernel.shape[-1]
    if not isinstance(feature_group_count, int) or feature_group_count < 1:
        raise ValueError(
            f"feature_group_count is {feature_group_count!r}; expected a positive int"
        )
    if M % feature_group_count:
        raise ValueError(
            f"feature_group_count is {feature_group_count}, which does not divide the "
            f"{M} output channels of {name}, of shape {kernel.shape}"
        )
    return feature_group_count


def convolutional_similarity(
    kernel: chex.Array,
    *,
    pairs: Pairs = "all",
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: int = 1,
) -> jax.Array:
    r"""Convolutional Similarity of the output channels of one conv kernel.

    .. math:: L = \sum_{i<j} CS(i,j), \qquad
              CS(i,j) = \sum_c \sum_l (K[i,c] \star K[j,c])[l]^2

    `L = 0` makes the feature maps of every pair orthogonal for every input, one input
    channel at a time; with `channels="cross"` all input channels together.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`: 1 to 3 spatial axes, C input
        channels per group, M output channels.
      pairs: `"all"` pairs of output channels, or only `"adjacent"` ones, (i, i+1), as
        in the authors' code.
      channels: `"matched"` correlates filters of the same input channel, as the paper
        does; `"cross"` those of every two input channels, as the maps do.
      normalize: Return the mean over pairs of `CS(i,j) / sqrt(CS(i,i) CS(j,j))`, which
        is free of the kernels' scale and lies in [0, 1], instead of the sum of CS. A
        pair with a zero kernel counts as 0.
      feature_group_count: Number of groups of a grouped convolution. Channels of
        different groups see different inputs and form no pair.

    Returns:
      Scalar of the kernel's dtype. In units of the fourth power of the weights, or
      without unit where `normalize`. Zero if there is no pair.

    Raises:
      ValueError: The rank is not 3, 4 or 5, the dtype is not floating, an option is
        unknown, or `feature_group_count` does not divide M.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> kernel = jnp.array([[1.0, 2.0], [1.0, -2.0]]).reshape(2, 1, 2)
      >>> convolutional_similarity(kernel)  # |[1,1] * [2,-2]|^2 = |[2,0,-2]|^2
      Array(8., dtype=float32)
      >>> print(convolutional_similarity(kernel, normalize=True).round(4))
      0.3333

    Source: Belmekki et al., arXiv 2411.03226, section 3. The sum over pairs runs on
    `sum_l (a*b)[l]^2 = sum_l (a*a)[l] (b*b)[l]` (Parseval).
    """
    kernel = check_kernel(kernel)
    groups = check_groups(kernel, feature_group_count)
    objective = Objective(pairs, channels, normalize).check()
    return similarity_of(kernel, objective, groups).astype(kernel.dtype)


@partial(jax.jit, static_argnames=("objective", "groups"))
def similarity_of(kernel: jax.Array, objective: Objective, groups: int) -> jax.Array:
    """`convolutional_similarity` of a checked kernel, in its accumulation dtype.

    The lag planes are `(2N - 1)^d / 2 N^d` times as large as the kernel, and cheaper to
    compute again than to keep: between the forward and the backward pass only their
    sums, named here, are stored.
    """
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    keep_sums = jax.checkpoint_policies.save_only_these_names("sums")
    return jax.checkpoint(
        partial(_similarity, objective=objective, groups=groups), policy=keep_sums
    )(kernel)


def _similarity(kernel: jax.Array, objective: Objective, groups: int) -> jax.Array:
    C, M = kernel.shape[-2:]
    size = M // groups
    pair_count = groups * (size - 1 if objective.pairs == "adjacent" else _two_of(size))
    if pair_count == 0:
        return jnp.zeros((), kernel.dtype)
    planes, weights = planes_and_weights(kernel)
    planes = [X.reshape(-1, C, groups, size) for X in planes]
    if objective.channels == "cross":
        planes = [_kept(X.sum(1, keepdims=True)) for X in planes]
    if objective.normalize:
        power = jnp.sum(jnp.square(kernel), axis=tuple(range(kernel.ndim - 1)))
        scale, nonzero_count = _inverse_norms(
            planes, weights, power.reshape(groups, size)
        )
        planes = [X * scale for X in planes]
    if objective.pairs == "adjacent":
        terms = [jnp.sum(X[..., :-1] * X[..., 1:]) for X in planes]
    elif objective.normalize:
        terms = [0.5 * _square_of_sum(X) for X in planes]
    else:
        terms = [0.5 * (_square_of_sum(X) - jnp.sum(X * X)) for X in planes]
    total = sum_of([w * term for w, term in zip(weights, terms, strict=True)])
    if objective.normalize and objective.pairs == "all":
        total = total - 0.5 * nonzero_count  # the similarity of each with itself is 1
    return total / pair_count if objective.normalize else total


def _inverse_norms(
    planes: list[jax.Array], weights: list[float], power: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What makes each channel's similarity with itself 1, and how many are not zero.

    A similarity is of degree 4 in the weights, too small for float32 where they are: so
    the planes are divided by each channel's power first. The result does not depend on
    that, and its derivative neither.
    """
    nonzero = power >= jnp.finfo(power.dtype).tiny
    inverse = jnp.where(nonzero, 1.0 / jnp.where(nonzero, power, 1.0), 0.0)
    inverse = _kept(lax.stop_gradient(inverse))[None, None]
    square = sum_of(
        [
            w * jnp.sum(jnp.square(X * inverse), axis=(0, 1), keepdims=True)
            for w, X in zip(weights, planes, strict=True)
        ]
    )
    count = jnp.sum(nonzero.astype(power.dtype))
    return inverse * _kept(inverse_sqrt(square)), count


def _square_of_sum(plane: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(_kept(plane.sum(-1))))


def _two_of(size: int) -> int:
    return size * (size - 1) // 2


def _kept(x: jax.Array) -> jax.Array:
    # The barrier keeps XLA from computing the sum again for every weight it is added to.
    return checkpoint_name(lax.optimization_barrier(x), "sums")


def unit_scale(kernel: jax.Array) -> jax.Array:
    """Each output channel divided by its largest weight, so that no power overflows.

    For functions that do not depend on the scale: their derivatives do not depend on
    how the scale was chosen either, so none is taken through it.
    """
    largest = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    usable = largest >= jnp.finfo(kernel.dtype).tiny
    return kernel / lax.stop_gradient(jnp.where(usable, largest, 1.0))


def inverse_sqrt(square: jax.Array) -> jax.Array:
    """`1 / sqrt(square)`, and 0 with derivative 0 where `square` is 0."""
    positive = square > 0
    return jnp.where(positive, lax.rsqrt(jnp.where(positive, square, 1.0)), 0.0)


def similarity_matrix(
    kernel: chex.Array,
    *,
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: int = 1,
) -> jax.Array:
    r"""Convolutional Similarity of every two output channels of one conv kernel.

    .. math:: S_{ij} = CS(i,j) = \sum_c \sum_l (K[i,c] \star K[j,c])[l]^2

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.
      channels: `"matched"` or `"cross"`, as in `convolutional_similarity`.
      normalize: Return `CS(i,j) / sqrt(CS(i,i) CS(j,j))`, the cosine of two
        autocorrelations: in [0, 1], and 1 where the power spectra are proportional.
      feature_group_count: Number of groups of a grouped convolution.

    Returns:
      Symmetric array of shape `(M, M)` and the kernel's dtype; 0 between channels of
      different groups, and in the rows and columns of zero kernels.

    Raises:
      ValueError: As `convolutional_similarity`.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[1.0, 2.0], [1.0, -2.0]]).reshape(2, 1, 2)
      >>> similarity_matrix(kernel)
      Array([[ 6.,  8.],
             [ 8., 96.]], dtype=float32)

    Source: Belmekki et al., arXiv 2411.03226, section 3, by Parseval's identity.
    """
    kernel = check_kernel(kernel)
    groups = check_groups(kernel, feature_group_count)
    objective = Objective(channels=channels, normalize=normalize).check()
    return _matrix(kernel, objective, groups).astype(kernel.dtype)


@partial(jax.jit, static_argnames=("objective", "groups"))
def _matrix(kernel: jax.Array, objective: Objective, groups: int) -> jax.Array:
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    if objective.normalize:
        kernel = unit_scale(kernel)
    planes, weights = planes_and_weights(kernel)
    if objective.channels == "cross":
        planes = [X.sum(1, keepdims=True) for X in planes]
    rows = [
        w**0.5 * X.reshape(-1, kernel.shape[-1])
        for w, X in zip(weights, planes, strict=True)
    ]
    return _gram_matrix(jnp.concatenate(rows), objective.normalize, groups)


def _gram_matrix(columns: jax.Array, normalize: bool, groups: int) -> jax.Array:
    """Inner products, or cosines, of columns `(features, M)` inside each group."""
    M = columns.shape[-1]
    if normalize:
        columns = columns * inverse_sqrt(jnp.sum(columns * columns, 0))[None]
    gram = jnp.matmul(columns.T, columns, precision=lax.Precision.HIGHEST)
    group = jnp.arange(M) // (M // groups)
    return jnp.where(group[:, None] == group[None], gram, 0.0)


def kernel_cosine_similarity(kernel: chex.Array) -> jax.Array:
    r"""Cosine of every two flattened kernels: what kernel orthogonality minimises.

    .. math:: \cos_{ij} = \frac{\langle K_i, K_j \rangle}{\|K_i\| \|K_j\|}

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.

    Returns:
      Symmetric array of shape `(M, M)` and the kernel's dtype, in [-1, 1]; 0 in the
      rows and columns of zero kernels.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[3.0, 0.0], [4.0, 2.0]]).reshape(2, 1, 2)
      >>> print(kernel_cosine_similarity(kernel)[0, 1])
      0.8

    Source: Belmekki et al., arXiv 2411.03226, section 4.1.
    """
    kernel = check_kernel(kernel)
    return _cosine(kernel).astype(kernel.dtype)


@jax.jit
def _cosine(kernel: jax.Array) -> jax.Array:
    kernel = unit_scale(kernel.astype(accumulation_dtype(kernel.dtype)))
    return _gram_matrix(kernel.reshape(-1, kernel.shape[-1]), normalize=True, groups=1)
