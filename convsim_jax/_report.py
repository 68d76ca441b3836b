"""A table of how similar the kernels of each layer are, in NumPy: it compiles nothing."""

import math
from typing import NamedTuple

import chex
import jax
import numpy as np

from convsim_jax._kernels import GroupCounts, Kernels, Layout, choose_kernels
from convsim_jax._layers import ConvLayer, ConvLayers, sizes
from convsim_jax._pairs import number_of_pairs
from convsim_jax._paths import Mask
from convsim_jax._similarity import Channels, Geometry, Objective, Pairs
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
                sizes(layer.shape),
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

    The similarity is of degree 4 in the weights: it falls ten-thousandfold where they
    shrink tenfold, and the maps stay as similar as they were. Norm and scale-free form
    stand beside it to tell the two apart.

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
    kernels = choose_kernels(params, mask, layout, layers, feature_group_count).distinct()
    read = Kernels(kernels.layers, jax.device_get(kernels.leaves)).read()
    rows = []
    for name, stack in read.items():
        layer = kernels.layers[name]
        for place in np.ndindex(*layer.stack):
            path = name + (f"[{', '.join(map(str, place))}]" if place else "")
            rows.append(
                _row(path, layer, np.asarray(stack[place], np.float64), objective)
            )
    return SimilarityReport(rows)


def _row(
    path: str, layer: ConvLayer, kernel: np.ndarray, objective: Objective
) -> LayerSimilarity:
    groups, M = layer.feature_group_count, layer.kernel[-1]
    size, sums = M // groups, np.zeros(3)
    norms = np.linalg.norm(kernel.reshape(-1, M), axis=0)
    units = np.split(kernel / np.where(norms > 0, norms, 1), groups, -1)
    every_pair = np.triu(np.ones((size, size)), 1)
    chosen = np.eye(size, k=1) if objective.pairs == "adjacent" else every_pair
    for unit, norm in zip(units, np.split(norms, groups), strict=True):
        matrix = _similarities(unit, layer.geometry, objective.channels)
        own = np.sqrt(np.diagonal(matrix))
        scale = 1 / np.where(own > 0, own, 1)
        raw, cosine = norm**2, unit.reshape(-1, size)
        sums += [
            raw @ (matrix * chosen) @ raw,
            scale @ (matrix * chosen) @ scale,
            np.sum(np.abs(cosine.T @ cosine) * every_pair),
        ]
    adjacent = objective.pairs == "adjacent"
    counts = [groups * number_of_pairs(size, adjacent=x) for x in (adjacent, False)]
    return LayerSimilarity(
        path,
        layer.kernel,
        float(np.linalg.norm(kernel)),
        float(sums[0]),
        float(sums[1] / max(counts[0], 1)),
        float(sums[2] / max(counts[1], 1)),
        _is_constant(layer, objective),
    )


def _similarities(
    kernel: np.ndarray, geometry: Geometry, channels: Channels
) -> np.ndarray:
    """`similarity_matrix` of one group by Parseval's identity, from the spectra.

    A strided convolution has as many kernels as there are phases of its window.
    """
    *window, C, M = kernel.shape
    strides = geometry.strides or (1,) * len(window)
    steps = [-(-n // s) for n, s in zip(window, strides, strict=True)]
    fill = [(0, q * s - n) for n, q, s in zip(window, steps, strides, strict=True)]
    split = [size for pair in zip(steps, strides, strict=True) for size in pair]
    phases = np.pad(kernel, [*fill, (0, 0), (0, 0)]).reshape(*split, C, M)
    lags = [2 * q - 1 for q in steps]
    spectra = np.fft.fftn(phases, lags, range(0, len(split), 2))
    axes = range(1, len(split), 2)
    spectra = np.moveaxis(spectra, axes, range(len(axes))).reshape(-1, *lags, C, M)
    if geometry.transposed:
        planes = spectra[:, None] * spectra[None].conj()
    else:
        planes = np.sum(np.abs(spectra) ** 2, 0)
    if channels == "cross":
        planes = planes.sum(-2)
    columns = planes.reshape(-1, M)
    return (columns.T.conj() @ columns).real / math.prod(lags)


def _is_constant(layer: ConvLayer, objective: Objective) -> bool:
    """Whether the scale-free form is the same for any kernel."""
    window, geometry = layer.kernel[:-2], layer.geometry
    strides = geometry.strides or (1,) * len(window)
    one_lag = all(n <= s for n, s in zip(window, strides, strict=True))
    only_norms = max(window) == 1 or (one_lag and not geometry.transposed)
    alone = layer.kernel[-1] == layer.feature_group_count
    return alone or (objective.channels == "cross" and only_norms)
