"""A table of how similar the kernels of each layer are."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from convsim_jax._checks import accumulation_dtype
from convsim_jax._kernels import (
    GroupCounts,
    Layout,
    choose_layers,
    distinct,
    read_kernels,
)
from convsim_jax._layers import ConvLayers
from convsim_jax._matrices import kernel_cosine_similarity
from convsim_jax._paths import Mask
from convsim_jax._similarity import Channels, Geometry, Objective, Pairs, similarity_of
from convsim_jax._table import aligned_table


class LayerSimilarity(NamedTuple):
    """One row of a `SimilarityReport`.

    Attributes:
      path: Where the kernel is in the tree; with its number, as in `kernel[2]`, where it
        is one of a stack.
      shape: `(*window, C, M)`.
      norm: Frobenius norm of the kernel.
      similarity: Convolutional Similarity, summed over pairs.
      scale_free: Its scale-free form, mean over pairs, in [0, 1].
      kernel_cosine: Mean absolute cosine of two kernels, over all pairs of a group,
        in [0, 1].
      constant: Whether the scale-free form is the same for any kernel: 1 across channels
        where a single lag counts, as with 1x1 kernels; 0 where there is no pair.
    """

    path: str
    shape: tuple[int, ...]
    norm: float
    similarity: float
    scale_free: float
    kernel_cosine: float
    constant: bool = False


class SimilarityReport(NamedTuple):
    """What `similarity_report` returns; its `str` is an aligned table.

    Attributes:
      layers: One `LayerSimilarity` for each conv kernel, in the order of the tree.
    """

    layers: list[LayerSimilarity]

    @property
    def scale_free(self) -> float:
        """Mean over layers of the scale-free form, without those where it is constant."""
        values = [layer.scale_free for layer in self.layers if not layer.constant]
        return sum(values) / len(values) if values else float("nan")

    def __str__(self) -> str:
        header = ["kernel", "shape", "norm", "similarity", "scale-free", "kernel cosine"]
        rows = [
            [
                layer.path,
                "x".join(map(str, layer.shape)),
                f"{layer.norm:.4g}",
                f"{layer.similarity:.4g}",
                f"{layer.scale_free:.4f}" + ("*" if layer.constant else ""),
                f"{layer.kernel_cosine:.4f}",
            ]
            for layer in self.layers
        ]
        table = aligned_table(header, rows)
        constant = any(layer.constant for layer in self.layers)
        return table + ("\n* the same for any kernel" if constant else "")


def similarity_report(
    params: chex.ArrayTree,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
    pairs: Pairs = "all",
    channels: Channels = "matched",
    feature_group_count: GroupCounts | None = None,
) -> SimilarityReport:
    r"""Norm and similarity of the kernels of every conv layer, as a table.

    The norm stands beside the similarity because the latter is of degree 4 in the
    weights: it falls ten-thousandfold where the weights shrink tenfold, and the maps
    stay as similar as they were. The scale-free column says what is left of the fall.

    Args:
      params: Tree of parameters; `conv_kernels` says which leaves count.
      mask: Tree of bools, or a function that makes one; see `conv_kernels`.
      layout: `"HWIO"` (Flax) or `"OIHW"` (Equinox, PyTorch); see `conv_kernels`.
      layers: What `conv_layers` says of the network; see `total_similarity`.
      pairs: `"all"` or `"adjacent"`; see `convolutional_similarity`.
      channels: `"matched"` or `"cross"`; see `convolutional_similarity`.
      feature_group_count: As in `total_similarity`.

    Returns:
      A `SimilarityReport`: print it, or read its `layers`.

    Raises:
      ValueError: As `total_similarity`.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.eye(4).reshape(1, 1, 4, 4)}}
      >>> print(similarity_report(params))
      kernel         shape  norm  similarity  scale-free  kernel cosine
      conv/kernel  1x1x4x4     2           0      0.0000         0.0000

    Source: Belmekki et al., arXiv 2411.03226, sections 3 and 4.
    """
    objective = Objective(pairs, channels)
    chosen, leaves = choose_layers(params, mask, layout, layers, feature_group_count)
    chosen = distinct(chosen, leaves)
    kernels = {
        name: kernel.reshape(-1, *chosen[name].kernel)
        for name, kernel in read_kernels(chosen, leaves).items()
    }
    geometries = tuple(layer.geometry for layer in chosen.values())
    measured = jax.device_get(_measure(tuple(kernels.values()), geometries, objective))
    rows = []
    for (name, layer), of_stack in zip(chosen.items(), measured, strict=True):
        constant = _is_constant(layer.kernel, layer.geometry, objective)
        for place, values in zip(np.ndindex(*layer.stack), of_stack, strict=True):
            path = name + (f"[{', '.join(map(str, place))}]" if place else "")
            norm, raw, scale_free, cosine = map(float, values)
            numbers = norm, raw, scale_free, cosine
            rows.append(LayerSimilarity(path, layer.kernel, *numbers, constant))
    return SimilarityReport(rows)


@partial(jax.jit, static_argnames=("geometries", "objective"))
def _measure(
    kernels: tuple[jax.Array, ...],
    geometries: tuple[Geometry, ...],
    objective: Objective,
) -> list[jax.Array]:
    """Four numbers of each kernel of each stack, kernels of one kind in one loop."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, (stack, geometry) in enumerate(zip(kernels, geometries, strict=True)):
        kind = stack.shape[1:], stack.dtype, jax.typeof(stack).sharding, geometry
        alike.setdefault(kind, []).append(number)
    measured: dict[int, jax.Array] = {}
    for (*_, geometry), numbers in alike.items():
        measure = partial(_measure_one, geometry=geometry, objective=objective)
        values = jax.lax.map(measure, jnp.concatenate([kernels[i] for i in numbers]))
        sizes = np.cumsum([len(kernels[i]) for i in numbers])
        measured |= zip(numbers, jnp.split(values, sizes[:-1]), strict=True)
    return [measured[number] for number in range(len(kernels))]


def _measure_one(
    kernel: jax.Array, geometry: Geometry, objective: Objective
) -> jax.Array:
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    scale_free = dataclasses.replace(objective, normalize=True)
    return jnp.stack(
        [
            jnp.sqrt(jnp.sum(jnp.square(kernel))),
            similarity_of(kernel, objective, geometry),
            similarity_of(kernel, scale_free, geometry),
            _mean_absolute_cosine(kernel, geometry.feature_group_count),
        ]
    )


def _mean_absolute_cosine(kernel: jax.Array, groups: int) -> jax.Array:
    M = kernel.shape[-1]
    size = M // groups
    group = jnp.arange(M) // size
    of_pair = jnp.triu(group[:, None] == group[None], 1)
    total = jnp.sum(jnp.abs(kernel_cosine_similarity(kernel)), where=of_pair)
    return total / max(groups * size * (size - 1) // 2, 1)


def _is_constant(
    kernel: tuple[int, ...], geometry: Geometry, objective: Objective
) -> bool:
    *window, _, M = kernel
    strides = geometry.strides or (1,) * len(window)
    one_tap = all(n == 1 for n in window)
    one_lag = all(n <= s for n, s in zip(window, strides, strict=True))
    alone = geometry.feature_group_count == M
    in_cross = one_tap or (one_lag and not geometry.transposed)
    return alone or (objective.channels == "cross" and in_cross)
