"""A table of how redundant the feature maps of each layer are."""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from convsim_jax._checks import accumulation_dtype
from convsim_jax._feature_maps import check_maps, correlations, feature_map_similarity
from convsim_jax._layers import sizes
from convsim_jax._norms import inverse_scale, inverse_sqrt
from convsim_jax._table import aligned_table


class LayerRedundancy(NamedTuple):
    """One row of a `RedundancyReport`. Correlations are over images and positions.

    Attributes:
      shape: `(batch, *spatial, M)`.
      effective: Effective number of maps, of M; see `effective_maps`.
      correlation: Mean absolute correlation of two maps, in [0, 1].
      twin: The map with which each map correlates most, `(M,)`.
      twin_correlation: The absolute value of that correlation, `(M,)`.
      dead: Number of maps that are 0 everywhere.
      constant: Number of further maps that have one value everywhere.
      cosine: Mean absolute cosine of two maps of an image; see `feature_map_similarity`.
      centered_cosine: The same, each map less its mean.
      independent_cosine: What the cosine would be of independent maps of these means and
        mean squares: after a ReLU of normal maps `1 / pi`.
    """

    shape: tuple[int, ...]
    effective: float
    correlation: float
    twin: np.ndarray
    twin_correlation: np.ndarray
    dead: int
    constant: int
    cosine: float
    centered_cosine: float
    independent_cosine: float

    def cells(self) -> list[str]:
        """The row as text, in the order of `COLUMNS`."""
        return [
            f"{self.effective:.1f} of {self.shape[-1]}",
            f"{self.correlation:.3f}",
            f"{self.twin_correlation.mean():.3f}",
            str(self.dead),
            str(self.constant),
            f"{self.cosine:.3f}",
            f"{self.independent_cosine:.3f}",
            f"{self.centered_cosine:.3f}",
        ]


COLUMNS = ["effective", "|corr|", "twin", "dead", "constant"]
COLUMNS += ["|cos|", "independent", "centered"]


class RedundancyReport(NamedTuple):
    """What `redundancy_report` returns; its `str` is an aligned table.

    Attributes:
      layers: The `LayerRedundancy` of each layer, by its path.
    """

    layers: dict[str, LayerRedundancy]

    def __str__(self) -> str:
        rows = [
            [path, sizes(layer.shape), *layer.cells()]
            for path, layer in self.layers.items()
        ]
        return aligned_table(["layer", "shape", *COLUMNS], rows)


def redundancy_report(maps: Mapping[str, chex.Array]) -> RedundancyReport:
    r"""How many different maps each layer has in effect, and what hides behind a cosine.

    After a ReLU even unrelated maps have a cosine of `1 / pi`. Beside the cosine stands
    what independent maps of these means and mean squares would have,

    .. math:: \frac{2}{M(M-1)} \sum_{i<j} \frac{|E F_i \, E F_j|}
                                              {\sqrt{E F_i^2 \, E F_j^2}}

    and correlations and the effective number of maps, which have no such floor.

    Args:
      maps: For each layer its maps `(batch, *spatial, M)`, by any name.

    Returns:
      A `RedundancyReport`, to be printed, or read. In the table, `twin` is the mean over
      maps of the largest absolute correlation with another map.

    Raises:
      ValueError: There is no layer, or maps have another rank or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([0.0, 4, 0, 4]), jnp.array([0.0, 1, 1, 0])
      >>> print(redundancy_report({"conv": jnp.stack([a, b, 3 * b, 0 * b], -1)[None]}))
      layer  shape  effective  |corr|   twin  dead  constant  |cos|  independent  centered
      conv   1x4x4   1.8 of 4   0.167  0.500     1         0  0.333        0.250     0.167
    """
    if not maps:
        raise ValueError("maps is empty; expected the feature maps of one layer or more")
    return RedundancyReport(
        {path: layer_redundancy(f, f"maps[{path!r}]") for path, f in maps.items()}
    )


def layer_redundancy(maps: chex.Array, name: str = "maps") -> LayerRedundancy:
    """The row of one layer; error messages call its maps `name`."""
    maps = check_maps(maps, name)
    maps = maps.astype(accumulation_dtype(maps.dtype))
    with jax.default_matmul_precision("highest"):
        correlation = np.abs(np.asarray(correlations(maps)[0]))
        cosine = float(feature_map_similarity(maps))
    varied = np.diagonal(correlation) > 0
    total = np.square(correlation).sum()
    np.fill_diagonal(correlation, 0)
    direction, dead = map(np.asarray, _direction_of_mean(maps))
    return LayerRedundancy(
        shape=maps.shape,
        effective=float(varied.sum() ** 2 / max(total, 1)),
        correlation=_mean_over_pairs(correlation),
        twin=correlation.argmax(1),
        twin_correlation=correlation.max(1),
        dead=int(dead.sum()),
        constant=int((~varied & ~dead).sum()),
        cosine=cosine,
        centered_cosine=float(feature_map_similarity(maps, center=True)),
        independent_cosine=_mean_over_pairs(np.abs(np.outer(direction, direction))),
    )


@jax.jit
def _direction_of_mean(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each channel, its mean over its root mean square, and whether it is zero."""
    scale = inverse_scale(maps)
    maps = maps * scale
    axes = tuple(range(maps.ndim - 1))
    square = jnp.mean(jnp.square(maps), axes)
    return jnp.mean(maps, axes) * inverse_sqrt(square), square == 0


def _mean_over_pairs(matrix: np.ndarray) -> float:
    M = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / max(M * (M - 1), 1))
