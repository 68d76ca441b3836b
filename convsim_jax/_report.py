"""A table of how similar the kernels of each layer are."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from convsim_jax._checks import accumulation_dtype
from convsim_jax._kernels import Layout, Mask, conv_kernels
from convsim_jax._matrices import kernel_cosine_similarity
from convsim_jax._similarity import Channels, Pairs, convolutional_similarity
from convsim_jax._table import aligned_table
from convsim_jax._total import GroupCounts, group_counts


class LayerSimilarity(NamedTuple):
    """One row of a `SimilarityReport`.

    Attributes:
      path: Where the kernel is in the tree.
      shape: `(*window, C, M)`.
      norm: Frobenius norm of the kernel.
      similarity: Convolutional Similarity, summed over pairs.
      scale_free: Its scale-free form, mean over pairs, in [0, 1].
      kernel_cosine: Mean absolute cosine of two kernels, over all pairs of a group,
        in [0, 1].
    """

    path: str
    shape: tuple[int, ...]
    norm: float
    similarity: float
    scale_free: float
    kernel_cosine: float


class SimilarityReport(NamedTuple):
    """What `similarity_report` returns; its `str` is an aligned table.

    Attributes:
      layers: One `LayerSimilarity` for each conv kernel, in the order of the tree.
    """

    layers: list[LayerSimilarity]

    def __str__(self) -> str:
        return aligned_table(
            ["kernel", "shape", "norm", "similarity", "scale-free", "kernel cosine"],
            [
                [
                    layer.path,
                    "x".join(map(str, layer.shape)),
                    f"{layer.norm:.4g}",
                    f"{layer.similarity:.4g}",
                    f"{layer.scale_free:.4f}",
                    f"{layer.kernel_cosine:.4f}",
                ]
                for layer in self.layers
            ],
        )


def similarity_report(
    params: chex.ArrayTree,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
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
    kernels = conv_kernels(params, mask=mask, layout=layout)
    groups = group_counts(kernels, feature_group_count)

    def layer(path: str, kernel: jax.Array) -> LayerSimilarity:
        kernel = kernel.astype(accumulation_dtype(kernel.dtype))

        def similarity(normalize: bool) -> float:
            return float(
                convolutional_similarity(
                    kernel,
                    pairs=pairs,
                    channels=channels,
                    normalize=normalize,
                    feature_group_count=groups[path],
                )
            )

        return LayerSimilarity(
            path=path,
            shape=kernel.shape,
            norm=float(jnp.sqrt(jnp.sum(jnp.square(kernel)))),
            similarity=similarity(normalize=False),
            scale_free=similarity(normalize=True),
            kernel_cosine=_mean_absolute_cosine(kernel, groups[path]),
        )

    return SimilarityReport([layer(path, kernel) for path, kernel in kernels.items()])


def _mean_absolute_cosine(kernel: jax.Array, groups: int) -> float:
    M = kernel.shape[-1]
    size = M // groups
    group = jnp.arange(M) // size
    of_pair = jnp.triu(group[:, None] == group[None], 1)
    total = jnp.sum(jnp.abs(kernel_cosine_similarity(kernel)), where=of_pair)
    return float(total) / max(groups * size * (size - 1) // 2, 1)
