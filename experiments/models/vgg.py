"""VGG-19 with batch normalisation: Simonyan and Zisserman, arXiv 1409.1556."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import ACTIVATIONS, batch_norm, conv, max_pool, scaled

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class VGG19(nn.Module):
    """Sixteen 3x3 convs in five stages that end in 2x2 max pooling, and a linear layer.

    The one linear layer, where the paper has three, is the form for CIFAR-10. The convs
    have biases, as published, although batch normalisation takes them away.

    Attributes:
        classes: number of classes.
        width: multiplies the channels.
        activation: a name in `ACTIVATIONS`.
        dtype: to compute in; the weights are float32.
        momentum: of the running averages of batch normalisation.
    """

    classes: int
    width: float = 1.0
    activation: str = "relu"
    dtype: Any = jnp.float32
    momentum: float = 0.9

    smallest_image = 32  # one pixel is left of it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = batch_norm(train, self.momentum, self.dtype)
        x = images
        for channels, layers in STAGES:
            for _ in range(layers):
                x = conv(
                    scaled(channels, self.width), 3, use_bias=True, dtype=self.dtype
                )(x)
                x = ACTIVATIONS[self.activation](norm()(x))
            x = max_pool(x)
        x = nn.Dense(self.classes, dtype=self.dtype)(x.reshape(len(x), -1))
        return x.astype(jnp.float32)
