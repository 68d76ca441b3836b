"""Wide residual networks: Zagoruyko and Komodakis, arXiv 1605.07146."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import ACTIVATIONS, batch_norm, conv, scaled


class WideResNet(nn.Module):
    """A 3x3 conv, three stages of pre-activation blocks, and a linear layer.

    WideResNet-d-k: d convs along the way, shortcuts counted, and k times the channels of
    the ResNet for CIFAR-10: 16k, 32k and 64k.

    Attributes:
        classes: number of classes.
        depth: d, which is 4 more than a multiple of 6.
        k: the factor of the channels.
        width: multiplies all channels, the first conv's 16 too.
        activation: a name in `ACTIVATIONS`.
        dtype: to compute in; the weights are float32.
        momentum: of the running averages of batch normalisation.
    """

    classes: int
    depth: int = 28
    k: int = 10
    width: float = 1.0
    activation: str = "relu"
    dtype: Any = jnp.float32
    momentum: float = 0.9

    smallest_image = 4  # the last stage sees one pixel of it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = batch_norm(train, self.momentum, self.dtype)
        activation = ACTIVATIONS[self.activation]
        x = conv(scaled(16, self.width), 3, dtype=self.dtype)(images)
        blocks = (self.depth - 4) // 6
        for stage in range(3):
            for block in range(blocks):
                x = PreActivationBlock(
                    scaled(16 * self.k * 2**stage, self.width),
                    stride=2 if stage and not block else 1,
                    activation=activation,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"Block_{stage * blocks + block}",
                )(x)
        x = activation(norm()(x)).mean((1, 2))
        return nn.Dense(self.classes, dtype=self.dtype)(x).astype(jnp.float32)


class PreActivationBlock(nn.Module):
    """Two 3x3 convs of normalised and activated maps, and a shortcut.

    The shortcut is a 1x1 conv of these where the number of channels changes.
    """

    channels: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Feature maps `(batch, height, width, channels)` to the next."""
        of = partial(conv, dtype=self.dtype)
        active = self.activation(self.norm()(x))
        y = of(self.channels, 3, self.stride)(active)
        y = of(self.channels, 3)(self.activation(self.norm()(y)))
        if x.shape != y.shape:
            x = of(self.channels, 1, self.stride)(active)
        return x + y
