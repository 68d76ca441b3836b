"""Labelled images, and the parts of a dataset."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Images(NamedTuple):
    """Images `(n, height, width, channels)`, uint8, and their labels `(n,)`, int32."""

    images: Any
    labels: Any


class Dataset(NamedTuple):
    """A dataset that fits into memory."""

    train: Images
    validation: Images  # held out of the training images, to choose by; maybe none
    test: Images  # scored once
    classes: int
    mean: Any  # of each channel of the training images, float32 `(channels,)`
    deviation: Any  # likewise, 1 where it is 0


def normalized(
    images: jax.Array, mean: jax.Array, deviation: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
    """Images `(..., channels)`, shifted by the mean and divided by the deviation.

    Computed in float32, whatever `dtype` comes back.

    >>> normalized(jnp.uint8([[0], [6]]), jnp.float32([3]), jnp.float32([3])).tolist()
    [[-1.0], [1.0]]
    """
    mean, deviation = (
        jnp.expand_dims(jnp.asarray(x, jnp.float32), range(images.ndim - 1))
        for x in (mean, deviation)
    )
    return ((images.astype(jnp.float32) - mean) / deviation).astype(dtype)
