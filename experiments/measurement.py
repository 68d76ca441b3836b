"""What is measured of networks before and after training, conv layer by conv layer."""

from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import convsim_jax as cs
from convsim_jax.flax import capture_feature_maps
from experiments.losses import PAPER, SCALE_FREE, Pairs
from experiments.models import ACTIVATIONS

# Feature maps of that many images are held at once: (images, M, M) cosines are large.
IMAGES_AT_ONCE = 16


class Kernels(NamedTuple):
    """Of each conv kernel of a network, `(layers,)`; the seeds, if any, come first.

    Attributes:
        norm: of the whole kernel.
        paper_loss: Convolutional Similarity, matched channels.
        scale_free_loss: scale-free, cross channels, in [0, 1].
    """

    norm: chex.Array
    paper_loss: chex.Array
    scale_free_loss: chex.Array

    def total(self) -> "Kernels":
        """Of the network: losses are summed over layers, squares for the norm."""
        return Kernels(
            (self.norm**2).sum(-1) ** 0.5,
            self.paper_loss.sum(-1),
            self.scale_free_loss.sum(-1),
        )


class Layers(NamedTuple):
    """Conv layers of a network, one a seed; arrays are `(seeds, layers)`.

    Attributes:
        names: path of each kernel, such as `Conv_0/kernel`.
        shapes: of each kernel.
        norm: of each kernel.
        paper_loss: Convolutional Similarity, matched channels.
        scale_free_loss: scale-free, cross channels, in [0, 1].
        before: feature-map similarity before the activation.
        after: the same after the activation.
        before_centered: of maps from which their mean over the pixels is taken.
        after_centered: likewise.
    """

    names: list[str]
    shapes: list[list[int]]
    norm: np.ndarray
    paper_loss: np.ndarray
    scale_free_loss: np.ndarray
    before: np.ndarray
    after: np.ndarray
    before_centered: np.ndarray
    after_centered: np.ndarray


def measure_kernels(params: chex.ArrayTree, pairs: Pairs) -> Kernels:
    """Measures the kernels of one network."""

    def of_layer(kernel: jax.Array) -> tuple[jax.Array, ...]:
        loss = partial(cs.convolutional_similarity, kernel, pairs=pairs)
        return (
            jnp.linalg.vector_norm(kernel),
            loss(**PAPER._asdict()),
            loss(**SCALE_FREE._asdict()),
        )

    layers = [of_layer(kernel) for kernel in cs.conv_kernels(params).values()]
    return Kernels(*map(jnp.stack, zip(*layers, strict=True)))


def measure_maps(
    model: nn.Module, variables: dict[str, Any], images: jax.Array
) -> jax.Array:
    """Feature-map similarity `(4, layers)`: before, after the activation; both, centered.

    Args:
        model: with an attribute `activation`, a name in `ACTIVATIONS`.
        variables: of one network, which is run in evaluation mode.
        images: those left over after a multiple of `IMAGES_AT_ONCE` are left out.
    """
    layers = [path.rpartition("/")[0] for path in cs.conv_kernels(variables["params"])]

    def of(images: jax.Array) -> jax.Array:
        maps = capture_feature_maps(
            model,
            images,
            variables=variables,
            activation=ACTIVATIONS[model.activation],
        )
        kinds = [
            jnp.stack(
                [
                    cs.feature_map_similarity(maps[layer][side], center=center)
                    for layer in layers
                ]
            )
            for center in (False, True)
            for side in (0, 1)
        ]
        return jnp.stack(kinds).astype(jnp.float32)

    size = min(len(images), IMAGES_AT_ONCE)
    whole = images[: len(images) // size * size]
    batches = whole.reshape(-1, size, *images.shape[1:])
    return jax.lax.map(of, batches).mean(0)


def order_of_use(
    model: nn.Module, variables: dict[str, Any], images: jax.Array
) -> list[str]:
    """Paths of the conv kernels of one network, in the order in which it applies them."""
    layers: dict[str, Any] = {}

    def run(variables: dict[str, Any], images: jax.Array) -> None:
        layers.update(capture_feature_maps(model, images, variables=variables))

    jax.eval_shape(run, variables, images)
    return [f"{layer}/kernel" for layer in layers]


def layers_of(
    order: list[str], params: chex.ArrayTree, kernels: Kernels, maps: Any
) -> Layers:
    """What was measured, with the names and shapes of the layers.

    Args:
        order: paths of the conv kernels, in the order of the result.
        params: of one network.
        kernels: from `measure_kernels`, of all seeds.
        maps: from `measure_maps`, `(seeds, 4, layers)`.
    """
    found = cs.conv_kernels(params)
    paths = list(found)
    columns = [paths.index(path) for path in order]
    kinds = np.moveaxis(np.asarray(maps), 1, 0)
    arrays = (np.asarray(x, np.float64)[:, columns] for x in (*kernels, *kinds))
    return Layers(order, [list(found[path].shape) for path in order], *arrays)
