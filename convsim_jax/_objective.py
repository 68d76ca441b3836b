r"""Convolutional Similarity of one kernel, with its gradient.

For output channels i and j of a kernel, with `A` its autocorrelation,

    matched channels (the paper):  CS(i,j) = sum_c   |K[i,c] * K[j,c]|^2
                                           = sum_c   <A[i,c], A[j,c]>
    cross channels:                CS(i,j) = sum_c,d |K[i,c] * K[j,d]|^2
                                           = <sum_c A[i,c], sum_d A[j,d]>

where `*` is the full cross-correlation. The inner products are over all lags. They make
the sum over all pairs as cheap as one over all channels (`_pairs`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp

from convsim_jax._blocks import map_blocks, sum_over_blocks
from convsim_jax._correlation import accumulation_dtype, check_kernel
from convsim_jax._counts import as_count
from convsim_jax._norms import inverse_sqrt
from convsim_jax._pairs import (
    as_row,
    between_zeros,
    partners_of,
    scale_free_slopes,
    scale_free_sum_and_slopes,
    similarity_with,
    slopes_of_sum,
)
from convsim_jax._planes import Form, Planes, form_of, once
from convsim_jax._sharding import in_auto_axes, replicated

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
    if (groups := as_count(feature_group_count)) is None or groups < 1:
        raise ValueError(
            f"feature_group_count is {feature_group_count!r}; expected a positive int"
        )
    if M % groups:
        raise ValueError(
            f"feature_group_count is {feature_group_count}, which does not divide the "
            f"{M} output channels of {name}, of shape {kernel.shape}"
        )
    return groups


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
        pair with a zero kernel counts as 0, and so does one with a kernel so small or
        so large that the square of its norm is 0 or infinite (in float32, of a norm
        below 1e-22 or above 1.8e19).
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


def similarity_of(kernel: jax.Array, objective: Objective, groups: int) -> jax.Array:
    """`convolutional_similarity` of a checked kernel, in its accumulation dtype."""
    return _similarity(objective, groups, kernel.astype(accumulation_dtype(kernel.dtype)))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _similarity(objective: Objective, groups: int, kernel: jax.Array) -> jax.Array:
    return _similarity_and_gradient(objective, groups, kernel)[0]


@_similarity.defjvp
def _similarity_jvp(
    objective: Objective,
    groups: int,
    kernels: tuple[jax.Array],
    tangents: tuple[jax.Array],
) -> tuple[jax.Array, jax.Array]:
    # All that is kept from the forward for the backward pass is the gradient itself.
    value, gradient = _similarity_and_gradient(objective, groups, *kernels)
    return value, jnp.sum(gradient * tangents[0])


@partial(jax.jit, static_argnums=(0, 1))
def _similarity_and_gradient(
    objective: Objective, groups: int, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    pairs = groups * number_of_pairs(objective, kernel.shape[-1] // groups)
    if pairs == 0:
        return jnp.zeros((), kernel.dtype), jnp.zeros_like(kernel)

    of_group = partial(_of_one_group, objective, groups, 1 / pairs)

    def of_all_groups(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        if groups == 1:
            return of_group(kernel)
        of_each = jax.vmap(of_group, -2, (0, -2))
        values, gradient = of_each(kernel.reshape(*kernel.shape[:-1], groups, -1))
        return values.sum(), gradient.reshape(kernel.shape)

    return in_auto_axes(of_all_groups, kernel, lambda spec: (replicated(spec), spec))


def number_of_pairs(objective: Objective, channels: int) -> int:
    """Pairs among the output channels of one group."""
    if objective.pairs == "adjacent":
        return channels - 1
    return channels * (channels - 1) // 2


def _of_one_group(
    objective: Objective, groups: int, share: float, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sum over pairs, or their share in the mean, and its gradient."""
    form = form_of(kernel, cross=objective.channels == "cross", groups=groups)
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    adjacent = objective.pairs == "adjacent"
    if not objective.normalize:
        sum_of_block = partial(_sum, form, adjacent=adjacent)
        gradient, value = map_blocks(sum_of_block, taps, form.blocks)
    elif form.blocks == 1:
        gradient, value = _scale_free(form, taps, share, adjacent=adjacent)
    else:
        gradient, value = _scale_free_in_blocks(form, taps, share, adjacent=adjacent)
    return value, gradient.reshape(kernel.shape)


def _sum(form: Form, kernel: jax.Array, *, adjacent: bool) -> tuple[jax.Array, jax.Array]:
    source: Sequence[jax.Array] = [kernel]
    planes_of = form.planes_of
    if form.kept:
        source, planes_of = once(planes_of(kernel)), as_they_are
    if adjacent:
        source = once(between_zeros(source))
    slopes = slopes_of_sum(planes_of, source, form.weights, adjacent=adjacent)
    gradient, along = form.gradient_of(slopes, kernel)
    # Euler's identity: the sum is of degree 4 in the kernel.
    return gradient, 0.25 * along


def _scale_free(
    form: Form, kernel: jax.Array, share: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    to_norm = _scale_to_norm_one(kernel)
    planes = form.planes_of(kernel, as_row(to_norm, kernel))
    to_one = _scale_to_similarity_one(similarity_with([planes], planes, form.weights))
    scale = once(as_row(to_norm * to_one, kernel))
    source: Sequence[jax.Array] = [kernel, scale]
    planes_of = form.planes_of
    if form.kept:
        source = [as_row(to_one**2, Y) * Y for Y in once(planes)]  # they are of degree 2
        planes_of = as_they_are
    if adjacent:
        source = between_zeros(source)
    value, slopes = scale_free_sum_and_slopes(
        planes_of, once(source), form.weights, adjacent=adjacent
    )
    slopes = [share * slope for slope in slopes]
    gradient, along = form.gradient_of(slopes, kernel, scale)
    # Without the inner product, windows of one tap would leave a reduction of a single
    # operand, and XLA's library would have that operand written first.
    value, _ = once((value, along))
    return gradient, share * value


def _scale_free_in_blocks(
    form: Form, kernel: jax.Array, share: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The same, in three passes over the blocks, each of which computes their planes."""
    to_norm = _scale_to_norm_one(kernel)

    def with_itself(block: jax.Array) -> jax.Array:
        planes = form.planes_of(block, as_row(to_norm, block))
        return similarity_with([planes], planes, form.weights)

    itself = sum_over_blocks(with_itself, kernel, form.blocks)
    scale = as_row(to_norm * _scale_to_similarity_one(itself), kernel)

    def partners_and_planes(block: jax.Array) -> tuple[Sequence[Planes], Planes]:
        source = once(form.planes_of(block, scale))
        if adjacent:
            source = between_zeros(source)
        source, of_source = partners_of(as_they_are, source, adjacent=adjacent)
        return of_source(source)

    def with_partners(block: jax.Array) -> jax.Array:
        return similarity_with(*partners_and_planes(block), form.weights)

    q = sum_over_blocks(with_partners, kernel, form.blocks)

    def gradient_of(block: jax.Array) -> tuple[jax.Array, jax.Array]:
        slopes = scale_free_slopes(q, *partners_and_planes(block), form.weights)
        return form.gradient_of([share * slope for slope in slopes], block, scale)

    gradient, _ = map_blocks(gradient_of, kernel, form.blocks)
    return gradient, 0.5 * share * jnp.sum(q)


def _scale_to_norm_one(kernel: jax.Array) -> jax.Array:
    """What comes first, as the similarities of small kernels would vanish."""
    return inverse_sqrt(jnp.sum(jnp.square(kernel), axis=(0, 1)))


def _scale_to_similarity_one(with_itself: jax.Array) -> jax.Array:
    """Of each channel with itself: it is of degree 4."""
    return inverse_sqrt(with_itself * inverse_sqrt(with_itself))


def as_they_are(*planes: jax.Array) -> Planes:
    """The planes of a source that is planes."""
    return planes
