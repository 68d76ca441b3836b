"""The similarity of a whole network: small kernels of one shape are vmapped over."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp

from convsim_jax._checks import accumulation_dtype, check_groups
from convsim_jax._kernels import Layout, Mask, conv_kernels
from convsim_jax._similarity import (
    Channels,
    Geometry,
    Objective,
    Pairs,
    similarity_of,
)

GroupCounts = int | Mapping[str, int]

# Kernels up to so many weights are stacked. It saves programs, and costs a copy of them.
MAX_STACKED_SIZE = 2**14


def total_similarity(
    params: chex.ArrayTree,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    pairs: Pairs = "all",
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: GroupCounts | None = None,
) -> jax.Array:
    r"""Convolutional Similarity of all conv kernels of a network, summed over layers.

    .. math:: L = \sum_{layers} \sum_{i<j} CS(i,j)

    Args:
      params: Tree of parameters; `conv_kernels` says which leaves count.
      mask: Tree of bools, or a function that makes one; see `conv_kernels`.
      layout: `"HWIO"` (Flax) or `"OIHW"` (Equinox, PyTorch); see `conv_kernels`.
      pairs: `"all"` or `"adjacent"`; see `convolutional_similarity`.
      channels: `"matched"` or `"cross"`; see `convolutional_similarity`.
      normalize: Sum each layer's mean scale-free similarity instead.
      feature_group_count: Number of groups of the convolutions: one for all layers, or
        `{path: number}` for the grouped ones among them. 1 by default.

    Returns:
      Scalar of the kernels' dtype; where they differ, of the widest that their sums
      accumulate in.

    Raises:
      ValueError: As `conv_kernels` and `convolutional_similarity`; or
        `feature_group_count` names a path that is no conv kernel.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((1, 1, 3, 4)), "bias": jnp.ones(4)}}
      >>> total_similarity(params)  # 6 pairs, 3 input channels
      Array(18., dtype=float32)

    Source: Belmekki et al., arXiv 2411.03226, section 3.
    """
    kernels = conv_kernels(params, mask=mask, layout=layout)
    groups = group_counts(kernels, feature_group_count)
    objective = Objective(pairs, channels, normalize)
    total = sum_over_layers(kernels, objective, groups)
    dtypes = {kernel.dtype for kernel in kernels.values()}
    return total.astype(dtypes.pop()) if len(dtypes) == 1 else total


def sum_over_layers(
    kernels: Mapping[str, jax.Array], objective: Objective, groups: Mapping[str, int]
) -> jax.Array:
    """The sum, in the widest accumulation dtype."""
    stacks: dict[tuple[Any, ...], list[jax.Array]] = {}
    for path, kernel in kernels.items():
        alone = path if kernel.size > MAX_STACKED_SIZE else ""
        sharding = jax.typeof(kernel).sharding
        key = (kernel.shape, kernel.dtype, groups[path], alone, sharding)
        stacks.setdefault(key, []).append(kernel)
    widest = max(
        (accumulation_dtype(dtype) for _, dtype, *_ in stacks),
        key=lambda dtype: jnp.finfo(dtype).bits,
    )
    total = jnp.zeros((), widest)
    for (_, _, group_count, *_), stack in stacks.items():
        layer = partial(
            similarity_of, objective=objective, geometry=Geometry(group_count)
        )
        layers = jax.vmap(layer)(jnp.stack(stack)) if len(stack) > 1 else layer(stack[0])
        total = total + layers.sum().astype(widest)
    return total


def group_counts(
    kernels: Mapping[str, jax.Array], feature_group_count: GroupCounts | None
) -> dict[str, int]:
    """The number of groups of every kernel, checked."""
    given = 1 if feature_group_count is None else feature_group_count
    if isinstance(given, Mapping):
        unknown = [path for path in given if path not in kernels]
        if unknown:
            raise ValueError(
                f"feature_group_count names {unknown[0]!r}, which is no conv kernel of "
                f"params; expected paths among {', '.join(kernels)}"
            )
        counts = {path: given.get(path, 1) for path in kernels}
    else:
        counts = dict.fromkeys(kernels, given)
    return {
        path: check_groups(kernel, counts[path], name=path)
        for path, kernel in kernels.items()
    }
