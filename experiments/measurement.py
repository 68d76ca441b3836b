"""What is measured of networks before and after training."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

import convsim_jax as cs
from convsim_jax.flax import capture_feature_maps
from experiments.classify.data import Images
from experiments.classify.models import ACTIVATIONS, CNN
from experiments.methods import PAPER, SCALE_FREE, Objective, Pairs

EVALUATED_AT_ONCE = 512


class Measurement(NamedTuple):
    """Measured of one network; with a leading axis on every array, one network a seed.

    Attributes:
        paper_loss: the paper's loss, summed over layers.
        scale_free_loss: the scale-free cross-channel loss, summed over layers.
        norm: norm of all conv kernels together.
        before: feature-map similarity of each conv layer before the activation, shape
            `(layers,)`.
        after: the same after the activation.
    """

    paper_loss: chex.Array
    scale_free_loss: chex.Array
    norm: chex.Array
    before: chex.Array
    after: chex.Array


@partial(jax.jit, static_argnames=("model", "pairs"))
def measure(
    model: CNN, variables: dict[str, Any], images: jax.Array, pairs: Pairs
) -> Measurement:
    """Measures the networks of all seeds, in evaluation mode on the same images."""

    def one(variables: dict[str, Any]) -> Measurement:
        params = variables["params"]

        def loss(objective: Objective) -> jax.Array:
            return cs.total_similarity(params, pairs=pairs, **objective._asdict())

        maps = capture_feature_maps(
            model,
            images,
            variables=variables,
            activation=ACTIVATIONS[model.activation],
        )
        before, after = (
            jnp.stack([cs.feature_map_similarity(layer[side]) for layer in maps.values()])
            for side in (0, 1)
        )
        kernels = cs.conv_kernels(params).values()
        norm = jnp.sqrt(sum(jnp.sum(kernel**2) for kernel in kernels))
        return Measurement(loss(PAPER), loss(SCALE_FREE), norm, before, after)

    return jax.vmap(one)(variables)


def batches_of(images: Images, size: int = EVALUATED_AT_ONCE) -> Images:
    """All images in batches of one size, the last filled up with images labelled -1."""
    count = len(images.labels)
    size = min(size, count)
    missing = -count % size
    padded = Images(
        np.pad(images.images, ((0, missing), (0, 0), (0, 0), (0, 0))),
        np.pad(images.labels, (0, missing), constant_values=-1),
    )
    return jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, size, *x.shape[1:])), padded)


def accuracy(model: CNN, variables: dict[str, Any], batches: Images) -> jax.Array:
    """Percentage classified correctly in evaluation mode; labels of -1 do not count."""

    def correct(batch: Images) -> jax.Array:
        logits = jnp.asarray(model.apply(variables, batch.images))
        return (logits.argmax(axis=-1) == batch.labels).sum(dtype=jnp.float32)

    total = (batches.labels >= 0).sum(dtype=jnp.float32)
    return 100 * jax.lax.map(correct, batches).sum() / total
