"""The similarity of a whole network: small kernels of one shape are vmapped over."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp

from convsim_jax._checks import accumulation_dtype
from convsim_jax._kernels import GroupCounts, Kernels, Layout, choose_kernels
from convsim_jax._layers import ConvLayers
from convsim_jax._paths import Mask
from convsim_jax._similarity import Channels, Objective, Pairs, similarity_of
from convsim_jax._xla import default_is_cpu, one_after

# Kernels up to so many weights are stacked. It saves programs, and costs a copy of them.
MAX_STACKED_SIZE = 2**14
ABREAST = 2  # layers that are computed at a time, where each waits for an earlier one


def total_similarity(
    params: chex.ArrayTree,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
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
      layers: What `conv_layers` says of the network: which kernels, groups and strides.
        Without, every convolution counts as one of stride 1.
      pairs: `"all"` or `"adjacent"`; see `convolutional_similarity`.
      channels: `"matched"` or `"cross"`; see `convolutional_similarity`.
      normalize: Sum each layer's mean scale-free similarity instead. With
        `channels="cross"`, kernels of one tap add 1 whatever they are.
      feature_group_count: Number of groups of the convolutions: one for all layers, or
        `{path: number}` for the grouped ones among them. 1 by default.

    Returns:
      Scalar of the kernels' dtype; where they differ, of the widest that their sums
      accumulate in.

    Raises:
      ValueError: As `conv_kernels` and `convolutional_similarity`; or
        `feature_group_count` names a path that `params` has not.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((1, 1, 3, 4)), "bias": jnp.ones(4)}}
      >>> total_similarity(params)  # 6 pairs, 3 input channels
      Array(18., dtype=float32)

    Source: Belmekki et al., arXiv 2411.03226, section 3.
    """
    objective = Objective(pairs, channels, normalize)
    kernels = choose_kernels(params, mask, layout, layers, feature_group_count)
    total = sum_over_layers(kernels.distinct(), objective)
    dtypes = {leaf.dtype for leaf in kernels.leaves.values()}
    return total.astype(dtypes.pop()) if len(dtypes) == 1 else total


def sum_over_layers(
    kernels: Kernels, objective: Objective, most: int = MAX_STACKED_SIZE
) -> jax.Array:
    """The sum, in the widest accumulation dtype; stacks have `most` weights a kernel."""
    alike: dict[tuple[Any, ...], list[jax.Array]] = {}
    for name, kernel in kernels.read().items():
        layer = kernels.layers[name]
        alone = name if kernel.size > most else ""
        typed = kernel.shape, kernel.dtype, jax.typeof(kernel).sharding
        kind = (layer.geometry, len(layer.stack), alone, *typed)
        alike.setdefault(kind, []).append(kernel)
    dtypes = [accumulation_dtype(leaf.dtype) for leaf in kernels.leaves.values()]
    widest = max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
    total = jnp.zeros((), widest)
    ones: list[jax.Array | None] = [None] * ABREAST
    for (geometry, stack_axes, *_), group in alike.items():
        similarity = partial(similarity_of, objective=objective, geometry=geometry)
        several = len(group) > 1
        for _ in range(stack_axes + several):
            similarity = jax.vmap(similarity, in_axes=(0, None))
        stack = jnp.stack(group) if several else group[0]
        value = similarity(stack, ones[-ABREAST]).sum()
        total += value.astype(widest)
        if default_is_cpu() and jax.typeof(stack).sharding.mesh.empty:
            ones.append(one_after(value))
    return total
