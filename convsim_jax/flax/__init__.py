"""Feature maps of a Flax model, Linen or NNX, and how similar they are.

Not imported by `convsim_jax` itself, which does not need Flax: import it by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax

try:
    from flax import linen as nn
    from flax import nnx
except ImportError as error:
    raise ImportError("convsim_jax.flax needs Flax: pip install flax") from error

from convsim_jax._layers import sizes
from convsim_jax._redundancy import COLUMNS, LayerRedundancy, layer_redundancy
from convsim_jax._table import aligned_table
from convsim_jax.flax._capture import run_linen, run_nnx


class FeatureMaps(NamedTuple):
    """Output of one conv layer, of shape `(batch, *spatial, M)`.

    Attributes:
      before: Before the activation, normalized if the model does so.
      after: After the activation.
    """

    before: jax.Array
    after: jax.Array


class LayerFeatureMapSimilarity(NamedTuple):
    """One row of a `FeatureMapReport`.

    Attributes:
      path: Where the layer is in the model.
      shape: `(batch, *spatial, M)`.
      before: `feature_map_similarity` before the activation.
      after: That after the activation.
      before_centered: As `before`, each map less its mean.
      after_centered: As `after`, each map less its mean.
      redundancy_before: `LayerRedundancy` before the activation.
      redundancy_after: That after the activation.
    """

    path: str
    shape: tuple[int, ...]
    before: float
    after: float
    before_centered: float
    after_centered: float
    redundancy_before: LayerRedundancy
    redundancy_after: LayerRedundancy

    def rows(self) -> list[list[str]]:
        """Two rows of the table: before the activation, and after it."""
        before = ["before", *self.redundancy_before.cells()]
        after = ["after", *self.redundancy_after.cells()]
        return [[self.path, sizes(self.shape), *before], ["", "", *after]]


class FeatureMapReport(NamedTuple):
    """What `feature_map_report` returns; its `str` is an aligned table.

    Attributes:
      layers: One `LayerFeatureMapSimilarity` for each conv layer, in order of use.
    """

    layers: list[LayerFeatureMapSimilarity]

    def __str__(self) -> str:
        return aligned_table(
            ["layer", "shape", "activation", *COLUMNS],
            [row for layer in self.layers for row in layer.rows()],
        )


def capture_feature_maps(
    model: nn.Module | nnx.Module,
    batch: chex.ArrayTree,
    *,
    variables: Mapping[str, Any] | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    **call_kwargs: Any,
) -> dict[str, FeatureMaps]:
    """Runs a model in evaluation mode and keeps what its conv layers put out.

    The maps before the activation are the output of a `Conv`, `ConvLocal` or
    `ConvTranspose` or, where that very array is the input of a `BatchNorm`, `GroupNorm`,
    `InstanceNorm`, `LayerNorm` or `RMSNorm`, what the normalization makes of it. Those
    after it are `activation` of these, which Flax does not let be observed: the model has
    others where a shortcut is added between.

    Layers may be inside `remat`, `jit`, `scan` and `cond`, of which a branch that is not
    taken has maps of zeros, not inside `vmap` or `while_loop`.

    Args:
      model: A Linen or NNX module. Of an NNX module a copy is run: its state stays.
      batch: The model's first argument, images of shape `(batch, *spatial, C)`.
      variables: For a Linen module, and only there: what `model.init` returns, batch
        statistics included.
      activation: The function that the model applies after its conv layers.
      **call_kwargs: The model's further arguments. Those of `train`, `training`,
        `is_training`, `deterministic` and `use_running_average` that its `__call__`
        accepts are set to evaluation mode if they are not given.

    Returns:
      The `FeatureMaps` of each conv layer by path, such as `"Block_0/Conv_1"`, in order
      of use. A layer that is applied again, or scanned, has an entry for each time:
      `Conv_0`, `Conv_0#2` and so on.

    Raises:
      ValueError: The model is not a Flax module, applies no conv layer or one where its
        maps cannot be had, or stays in training mode; or `variables` is missing, or given
        where it has no meaning.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> model = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(8, (3, 3))])
      >>> images = jnp.ones((2, 16, 16, 3))
      >>> variables = model.init(jax.random.key(0), images)
      >>> maps = capture_feature_maps(model, images, variables=variables)
      >>> {path: layer.after.shape for path, layer in maps.items()}
      {'layers_0': (2, 16, 16, 4), 'layers_2': (2, 16, 16, 8)}
    """
    name = type(model).__name__
    if not isinstance(model, nn.Module | nnx.Module):
        raise ValueError(
            f"model is of type {name}; expected a flax.linen.Module or flax.nnx.Module"
        )
    if isinstance(model, nn.Module):
        if variables is None:
            raise ValueError(
                f"variables is missing: {name} is a Linen module, which needs what its "
                "init returns, such as {'params': ..., 'batch_stats': ...}"
            )
        maps = run_linen(model, variables, batch, **call_kwargs)
    else:
        if variables is not None:
            raise ValueError(
                f"variables is given, but {name} is an NNX module, which holds its own"
            )
        maps = run_nnx(model, batch, **call_kwargs)
    return {
        path: FeatureMaps(before, activation(before)) for path, before in maps.items()
    }


def feature_map_report(
    model: nn.Module | nnx.Module,
    batch: chex.ArrayTree,
    *,
    variables: Mapping[str, Any] | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    **call_kwargs: Any,
) -> FeatureMapReport:
    """How redundant the feature maps of each conv layer are, as a table.

    A row before the activation and one after it, with the columns of `redundancy_report`.

    Args:
      model: A Linen or NNX module.
      batch: The model's first argument, images of shape `(batch, *spatial, C)`.
      variables: Those of a Linen module.
      activation: The function that the model applies after its conv layers.
      **call_kwargs: The model's further arguments; see `capture_feature_maps`.

    Returns:
      A `FeatureMapReport`, to be printed, or read.

    Raises:
      ValueError: As `capture_feature_maps`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> ones = nnx.initializers.ones
      >>> model = nnx.Conv(1, 2, (1, 1), kernel_init=ones, rngs=nnx.Rngs(0))
      >>> report = feature_map_report(model, jnp.eye(4).reshape(1, 4, 4, 1))
      >>> for side in report.layers[0][-2:]:
      ...     print(f"{side.effective:.2f} of 2, cosine {side.cosine:.2f}")
      1.00 of 2, cosine 1.00
      1.00 of 2, cosine 1.00

    Source: Belmekki et al., arXiv 2411.03226, section 4.
    """
    maps = capture_feature_maps(
        model, batch, variables=variables, activation=activation, **call_kwargs
    )
    return FeatureMapReport([_row(path, *layer) for path, layer in maps.items()])


def _row(path: str, before: jax.Array, after: jax.Array) -> LayerFeatureMapSimilarity:
    first, last = layer_redundancy(before), layer_redundancy(after)
    cosines = first.cosine, last.cosine, first.centered_cosine, last.centered_cosine
    return LayerFeatureMapSimilarity(path, first.shape, *cosines, first, last)
