r"""Convolutional Similarity of one kernel: what is asked for, and the answer.

For output channels i and j of a kernel, with `A` its autocorrelation,

    matched channels (the paper):  CS(i,j) = sum_c   |K[i,c] * K[j,c]|^2
                                           = sum_c   <A[i,c], A[j,c]>
    cross channels:                CS(i,j) = sum_c,d |K[i,c] * K[j,d]|^2
                                           = <sum_c A[i,c], sum_d A[j,d]>

where `*` is the full cross-correlation. The inner products are over all lags, or over
those that count for a convolution with strides (`_planes`). They make the sum over all
pairs as cheap as one over all channels (`_pairs`).
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np

from convsim_jax._checks import (
    accumulation_dtype,
    check_choice,
    check_groups,
    check_kernel,
    check_strides,
)
from convsim_jax._pairs import (
    number_of_pairs,
    scale_free_sum_and_gradient,
    sum_and_gradient,
)
from convsim_jax._planes import form_of
from convsim_jax._xla import in_auto_axes, replicated

Pairs = Literal["all", "adjacent"]
Channels = Literal["matched", "cross"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Which similarity is meant; `convolutional_similarity` describes the options.

    Raises:
      ValueError: An option is unknown.
    """

    pairs: Pairs = "all"
    channels: Channels = "matched"
    normalize: bool = False

    def __post_init__(self) -> None:
        check_choice(self.pairs, "pairs", get_args(Pairs))
        check_choice(self.channels, "channels", get_args(Channels))
        check_choice(self.normalize, "normalize", (True, False))


class Geometry(NamedTuple):
    """What the convolution does with its kernel, as far as similarity depends on it.

    Attributes:
      feature_group_count: Number of groups of a grouped convolution: channels of
        different groups see different inputs and form no pair.
      strides: One for each axis of the window; `()` where all are 1. Of a convolution
        dilated by d that moves by s: `s / gcd(s, d)`, as dilation spreads the lags.
      transposed: Whether the convolution is transposed; its strides are then those by
        which its input is spread.
    """

    feature_group_count: int = 1
    strides: tuple[int, ...] = ()
    transposed: bool = False


def convolutional_similarity(
    kernel: chex.Array,
    *,
    pairs: Pairs = "all",
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: int = 1,
    strides: int | Sequence[int] = 1,
    transposed: bool = False,
) -> jax.Array:
    r"""Convolutional Similarity of the output channels of one conv kernel.

    .. math:: L = \sum_{i<j} CS(i,j), \qquad
              CS(i,j) = \sum_c \sum_l (K[i,c] \star K[j,c])[l]^2

    It bounds how alike the maps of a pair can be, whatever the input: of one input
    channel at a time, or with `channels="cross"` of all of them together. Kernels that
    share an input channel cannot reach 0. Kernels of one tap have a scale-free form of
    1 across channels, whatever they are, and no gradient.

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`: 1 to 3 spatial axes, C input
        channels per group, M output channels.
      pairs: `"all"` pairs of output channels, or only `"adjacent"` ones, (i, i+1), as
        in the authors' code.
      channels: `"matched"` correlates filters of the same input channel, as the paper
        does; `"cross"` those of every two input channels, as the maps do.
      normalize: Return the mean over pairs of `CS(i,j) / sqrt(CS(i,i) CS(j,j))`, which
        is free of the kernels' scale and lies in [0, 1], instead of the sum of CS. A
        pair with a zero kernel counts as 0. In float32 norms are to be between 1e-16 and
        1e18: smaller kernels may count as zero, larger ones give NaN.
      feature_group_count: Number of groups of a grouped convolution. Channels of
        different groups see different inputs and form no pair.
      strides: Of the convolution, an int or one for each axis of the window. The maps
        of a strided convolution see only those lags l of the autocorrelations that are
        multiples of it; 1 is the paper's. For a convolution dilated by d it is
        `s / gcd(s, d)`.
      transposed: Whether the convolution is transposed, with its input spread by
        `strides`: only lags l of `K[i,c] * K[j,c]` that are multiples count.

    Returns:
      Scalar of the kernel's dtype. In units of the fourth power of the weights, or
      without unit where `normalize`. Zero if there is no pair.

    Raises:
      ValueError: The rank is not 3, 4 or 5, the dtype is not floating, an option is
        unknown, `feature_group_count` does not divide M, or `strides` is not one
        positive int, or one for each axis.

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
    objective = Objective(pairs, channels, normalize)
    geometry = check_geometry(kernel, feature_group_count, strides, transposed)
    return similarity_of(kernel, None, objective, geometry).astype(kernel.dtype)


def check_geometry(
    kernel: jax.Array,
    feature_group_count: int,
    strides: int | Sequence[int],
    transposed: bool,
) -> Geometry:
    """The geometry that the arguments mean, or a ValueError that names the wrong one."""
    check_choice(transposed, "transposed", (True, False))
    groups = check_groups(kernel, feature_group_count)
    return Geometry(groups, check_strides(strides, kernel.shape[:-2]), transposed)


def similarity_of(
    kernel: jax.Array,
    one: jax.Array | None,
    objective: Objective,
    geometry: Geometry,
) -> jax.Array:
    """`convolutional_similarity` of a checked kernel, in its accumulation dtype.

    It is computed after `one` is, if that is given, a 1 in that dtype.
    """
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    known = np.ones((), kernel.dtype) if one is None else one.astype(kernel.dtype)
    return _similarity(objective, geometry, kernel, known)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _similarity(
    objective: Objective, geometry: Geometry, kernel: jax.Array, one: jax.Array
) -> jax.Array:
    return _value_and_gradient(objective, geometry, kernel, one)[0]


@_similarity.defjvp
def _similarity_jvp(
    objective: Objective,
    geometry: Geometry,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    # All that the backward pass keeps from the forward one is the gradient itself.
    value, gradient = _value_and_gradient(objective, geometry, *primals)
    return value, jnp.sum(gradient * tangents[0])


@partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradient(
    objective: Objective, geometry: Geometry, kernel: jax.Array, one: jax.Array
) -> tuple[jax.Array, jax.Array]:
    groups, strides, transposed = geometry
    adjacent = objective.pairs == "adjacent"
    pairs = groups * number_of_pairs(kernel.shape[-1] // groups, adjacent=adjacent)
    if pairs == 0:
        return jnp.zeros((), kernel.dtype), jnp.zeros_like(kernel)

    def one_group(kernel: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
        form = form_of(
            kernel,
            cross=objective.channels == "cross",
            strides=strides,
            transposed=transposed,
            groups=groups,
            one=one,
        )
        taps = kernel.reshape(-1, *kernel.shape[-2:])
        if objective.normalize:
            factor = 1 / pairs
            value, gradient = scale_free_sum_and_gradient(
                form, taps, factor, adjacent=adjacent
            )
        else:
            value, gradient = sum_and_gradient(form, taps, adjacent=adjacent)
        return value, gradient.reshape(kernel.shape)

    def all_groups(kernel: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
        if groups == 1:
            return one_group(kernel, one)
        split = kernel.reshape(*kernel.shape[:-1], groups, -1)
        values, gradient = jax.vmap(one_group, (-2, None), (0, -2))(split, one)
        return values.sum(), gradient.reshape(kernel.shape)

    return in_auto_axes(all_groups, kernel, lambda spec: (replicated(spec), spec), one)
