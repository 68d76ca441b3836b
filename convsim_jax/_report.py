"""A table of how similar the kernels of each layer are."""

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
from convsim_jax._layers import ConvLayer, ConvLayers
from convsim_jax._matrices import kernel_cosine_similarity, similarity_matrix
from convsim_jax._norms import inverse_scale, inverse_sqrt
from convsim_jax._pairs import number_of_pairs
from convsim_jax._paths import Mask
from convsim_jax._similarity import Channels, Objective, Pairs
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
    kernels: dict[str, Any] = read_kernels(chosen, jax.device_get(leaves))
    sums = _sums_over_pairs(kernels, chosen, objective)
    rows = []
    for name, layer in chosen.items():
        constant = _is_constant(layer, objective)
        counts = _pairs_of(layer, objective.pairs), _pairs_of(layer, "all")
        for place in np.ndindex(*layer.stack):
            path = name + (f"[{', '.join(map(str, place))}]" if place else "")
            norm = float(np.linalg.norm(kernels[name][place].astype(np.float64)))
            raw, scale_free, cosine = sums[name][place]
            means = scale_free / max(counts[0], 1), cosine / max(counts[1], 1)
            rows.append(LayerSimilarity(path, layer.kernel, norm, raw, *means, constant))
    return SimilarityReport(rows)


def _sums_over_pairs(
    kernels: dict[str, np.ndarray], layers: dict[str, ConvLayer], objective: Objective
) -> dict[str, np.ndarray]:
    """Similarity, scale-free form and absolute cosine, `(*stack, 3)` for each layer.

    Few programs serve all layers. Each group of each kernel is a kernel of its own, and
    its channels are filled up with zeros to a power of two, which changes no sum.
    """
    alike: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
    sums: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        sums[name] = np.zeros((*layer.stack, 3))
        if _pairs_of(layer, "all"):
            parts = _parts(layer, kernels[name])
            kind = parts.shape[1:], parts.dtype, layer.geometry[1:]
            alike.setdefault(kind, {})[name] = parts
    geometries = tuple(geometry for *_, geometry in alike)
    stacks = [np.concatenate(list(group.values())) for group in alike.values()]
    measured = jax.device_get(_measure(stacks, geometries, objective))
    for values, group in zip(measured, alike.values(), strict=True):
        ends = np.cumsum([len(parts) for parts in group.values()])
        for name, of_layer in zip(group, np.split(values, ends[:-1]), strict=True):
            shape = (*layers[name].stack, layers[name].feature_group_count, 3)
            sums[name] = of_layer.astype(np.float64).reshape(shape).sum(-2)
    return sums


def _parts(layer: ConvLayer, kernels: np.ndarray) -> np.ndarray:
    """The groups of a stack of kernels, `(stack * groups, *window, C, M / groups)`."""
    *shape, M = layer.kernel
    groups = layer.feature_group_count
    wide = kernels.astype(accumulation_dtype(kernels.dtype))
    parts = np.moveaxis(wide.reshape(-1, *shape, groups, M // groups), -2, 1)
    parts = parts.reshape(-1, *shape, M // groups)
    fill = [(0, max(1 << (n - 1).bit_length(), 64) - n) for n in parts.shape[-2:]]
    return np.pad(parts, [(0, 0)] * (parts.ndim - 2) + fill)


# A report runs once: what it costs is its compilation.
_QUICKLY_COMPILED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@partial(jax.jit, static_argnums=(1, 2), compiler_options=_QUICKLY_COMPILED)
def _measure(
    stacks: list[jax.Array], geometries: tuple[Any, ...], objective: Objective
) -> list[jax.Array]:
    return [
        jax.lax.map(partial(_sums, objective, strides or 1, transposed), stack)
        for stack, (strides, transposed) in zip(stacks, geometries, strict=True)
    ]


def _sums(
    objective: Objective, strides: Any, transposed: bool, kernel: jax.Array
) -> jax.Array:
    """Of similarity, scale-free form and absolute cosine, over the pairs of one group."""
    scale = inverse_scale(kernel)
    matrix = similarity_matrix(
        kernel * scale,
        channels=objective.channels,
        strides=strides,
        transposed=transposed,
    )
    square = jnp.square(scale.reshape(-1))
    back = jnp.where(square > 0, 1.0 / jnp.where(square > 0, square, 1.0), 0.0)
    to_one = inverse_sqrt(jnp.diagonal(matrix))
    upper = jnp.triu(matrix, 1)
    pairs = upper - jnp.triu(matrix, 2) if objective.pairs == "adjacent" else upper
    cosine = jnp.abs(jnp.triu(kernel_cosine_similarity(kernel), 1))
    return jnp.stack([back @ pairs @ back, to_one @ pairs @ to_one, cosine.sum()])


def _pairs_of(layer: ConvLayer, pairs: str) -> int:
    size = layer.kernel[-1] // layer.feature_group_count
    of_group = number_of_pairs(size, adjacent=pairs == "adjacent")
    return layer.feature_group_count * of_group


def _is_constant(layer: ConvLayer, objective: Objective) -> bool:
    """Whether the scale-free form is the same for any kernel."""
    window, geometry = layer.kernel[:-2], layer.geometry
    strides = geometry.strides or (1,) * len(window)
    one_lag = all(n <= s for n, s in zip(window, strides, strict=True))
    of_power = max(window) == 1 or (one_lag and not geometry.transposed)
    cross = objective.channels == "cross" and of_power
    return cross or not _pairs_of(layer, objective.pairs)
