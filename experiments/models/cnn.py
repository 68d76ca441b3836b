"""The shallow network, small enough to train many at once on any device."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.convolution import convolve
from experiments.models.layers import ACTIVATIONS, batch_norm, max_pool, scaled


class CNN(nn.Module):
    """Three 3x3 convs of 32, 64 and 128 channels, then a linear layer.

    Each conv is followed by batch normalisation if `batch_norm`, the activation, and 2x2
    max pooling. The initialization is LeCun's, Flax's default.

    Attributes:
        classes: number of classes.
        width: multiplies the channels.
        activation: a name in `ACTIVATIONS`.
        dtype: to compute in; the weights are float32.
        batch_norm: whether to normalise each conv's output.
        momentum: of the running averages of batch normalisation.
    """

    classes: int
    width: float = 1.0
    activation: str = "relu"
    dtype: Any = jnp.float32
    batch_norm: bool = True
    momentum: float = 0.9

    smallest_image = 8  # one pixel is left of it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = batch_norm(train, self.momentum, self.dtype)
        x = images
        for channels in (32, 64, 128):
            x = nn.Conv(
                scaled(channels, self.width),
                (3, 3),
                padding=1,
                use_bias=not self.batch_norm,
                dtype=self.dtype,
                conv_general_dilated=convolve,
            )(x)
            x = norm()(x) if self.batch_norm else x
            x = max_pool(ACTIVATIONS[self.activation](x))
        x = nn.Dense(self.classes, dtype=self.dtype)(x.reshape(len(x), -1))
        return x.astype(jnp.float32)
