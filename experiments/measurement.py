"""What is measured of networks before and after training, conv layer by conv layer."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

import convsim_jax as cs
from experiments.losses import PAPER, SCALE_FREE, Options
from experiments.models.own import feature_maps

# Feature maps of that many images are held at once: (images, M, M) cosines are large.
IMAGES_AT_ONCE = 16


class Kernels(NamedTuple):
    """Of each conv kernel of a network, `(layers,)`; the seeds, if any, come first."""

    norm: chex.Array  # of the whole kernel
    paper_loss: chex.Array  # Convolutional Similarity, matched channels
    scale_free_loss: chex.Array  # scale-free, cross channels, in [0, 1]

    def total(self) -> "Kernels":
        """Of the network: losses are summed over layers, squares for the norm."""
        return Kernels(
            (self.norm**2).sum(-1) ** 0.5,
            self.paper_loss.sum(-1),
            self.scale_free_loss.sum(-1),
        )


class Layers(NamedTuple):
    """Conv layers of a network, one a seed; arrays are `(seeds, layers)`."""

    names: list[str]  # path of each kernel, such as `Conv_0/kernel`
    shapes: list[list[int]]  # of each kernel
    norm: np.ndarray  # of each kernel
    paper_loss: np.ndarray  # Convolutional Similarity, matched channels
    scale_free_loss: np.ndarray  # scale-free, cross channels, in [0, 1]
    before: np.ndarray  # feature-map similarity before the activation
    after: np.ndarray  # the same after the activation
    before_centered: np.ndarray  # of maps from which their mean over the pixels is taken
    after_centered: np.ndarray
    # effective number of maps before the activation, from 1 to M; None in records
    # of earlier versions
    effective_before: np.ndarray | None = None
    effective_after: np.ndarray | None = None  # the same after the activation


def measure_kernels(params: chex.ArrayTree, options: Options) -> Kernels:
    """Measures the kernels of one network; of a stack of kernels, losses are sums."""
    layers = {layer.path: cs.ConvLayers((layer,)) for layer in options.layers or ()}

    def of_layer(path: str, kernel: jax.Array) -> tuple[jax.Array, ...]:
        loss = partial(cs.convolutional_similarity, kernel)
        if path in layers:
            loss = partial(cs.total_similarity, params, layers=layers[path])
        return (
            jnp.linalg.vector_norm(kernel),
            loss(pairs=options.pairs, **PAPER._asdict()),
            loss(pairs=options.pairs, **SCALE_FREE._asdict()),
        )

    kernels = cs.conv_kernels(params, layers=options.layers)
    measured = [of_layer(*found) for found in kernels.items()]
    return Kernels(*map(jnp.stack, zip(*measured, strict=True)))


def measure_maps(
    model: Any, variables: dict[str, Any], images: jax.Array, options: Options
) -> jax.Array:
    """Feature maps of every layer, before and after the activation, `(6, layers)`.

    The first two rows are their similarity, the next two that of centered maps, the last
    two the effective numbers of maps. The network runs in evaluation mode; layers whose
    maps cannot be seen, such as those that it scans over, have NaN. Of the similarity,
    images left over after a multiple of `IMAGES_AT_ONCE` are left out.
    """
    found = cs.conv_kernels(variables["params"], layers=options.layers)
    layers = [path.rpartition("/")[0] for path in found]

    def rows(images: jax.Array, *measures: Callable[[jax.Array], jax.Array]) -> jax.Array:
        maps = feature_maps(model, variables, images)
        hidden = jnp.float32(jnp.nan)
        return jnp.stack(
            [
                jnp.stack(
                    [
                        measure(maps[layer][side]) if layer in maps else hidden
                        for layer in layers
                    ]
                )
                for measure in measures
                for side in (0, 1)
            ]
        ).astype(jnp.float32)

    def alike(images: jax.Array) -> jax.Array:
        centered = partial(cs.feature_map_similarity, center=True)
        return rows(images, cs.feature_map_similarity, centered)

    size = min(len(images), IMAGES_AT_ONCE)
    whole = images[: len(images) // size * size]
    batches = whole.reshape(-1, size, *images.shape[1:])
    similarity = jax.lax.map(alike, batches).mean(0)
    return jnp.concatenate([similarity, rows(images, cs.effective_maps)])


def order_of_use(
    model: Any, variables: dict[str, Any], images: jax.Array, options: Options
) -> list[str]:
    """Paths of the conv kernels of one network, in the order in which it applies them."""
    layers: dict[str, Any] = {}

    def run(variables: dict[str, Any], images: jax.Array) -> None:
        layers.update(feature_maps(model, variables, images))

    jax.eval_shape(run, variables, images)
    kernels = cs.conv_kernels(variables["params"], layers=options.layers)
    used = [path for layer in layers if (path := f"{layer}/kernel") in kernels]
    return used + [path for path in kernels if path not in used]


def layers_of(
    order: list[str],
    params: chex.ArrayTree,
    kernels: Kernels,
    maps: Any,
    options: Options,
) -> Layers:
    """What was measured, with the names and shapes of the layers.

    `order` has the paths of the kernels, as the result has them; `kernels` and `maps`,
    `(seeds, 6, layers)`, are what was measured of all seeds.
    """
    found = cs.conv_kernels(params, layers=options.layers)
    paths = list(found)
    columns = [paths.index(path) for path in order]
    kinds = np.moveaxis(np.asarray(maps), 1, 0)
    arrays = (np.asarray(x, np.float64)[:, columns] for x in (*kernels, *kinds))
    return Layers(order, [list(found[path].shape) for path in order], *arrays)
