"""The networks: small CNNs in Flax Linen, made to train many at once on any device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "elu": nn.elu,
}


class CNN(nn.Module):
    """Three 3x3 convs of `width`, 2 and 4 times `width` channels, then a linear layer.

    Each conv is followed by batch normalisation if `batch_norm`, the activation, and
    2x2 max pooling.

    Attributes:
        classes: number of classes.
        width: output channels of the first conv.
        activation: a name in `ACTIVATIONS`.
        batch_norm: whether to normalise each conv's output.
        momentum: of the running averages of batch normalisation.
    """

    classes: int
    width: int = 32
    activation: str = "relu"
    batch_norm: bool = True
    momentum: float = 0.9

    # Three times halved, a smaller image would be empty.
    smallest_image = 8

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        x = images
        for multiple in (1, 2, 4):
            x = nn.Conv(
                multiple * self.width,
                kernel_size=(3, 3),
                use_bias=not self.batch_norm,
                conv_general_dilated=convolve,
            )(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(x)
            x = max_pool(ACTIVATIONS[self.activation](x))
        return nn.Dense(self.classes)(x.reshape(len(x), -1))


MODELS: dict[str, Callable[..., CNN]] = {
    "cnn": partial(CNN, batch_norm=True),
    "cnn-plain": partial(CNN, batch_norm=False),
}


def convolve(
    images: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **_: Any
) -> jax.Array:
    """A convolution of stride 1 that keeps the image's size, as one matrix product.

    On CPUs a convolution inside a loop or a `vmap` runs ten to a hundred times slower
    than the product of the image's patches with the kernel. `nn.Conv` passes strides
    and the like, of which `CNN` uses the defaults alone.
    """
    height, width, channels, kernels = kernel.shape
    padded = jnp.pad(
        images,
        (
            (0, 0),
            ((height - 1) // 2, height // 2),
            ((width - 1) // 2, width // 2),
            (0, 0),
        ),
    )
    rows, columns = images.shape[1:3]
    patches = jnp.concatenate(
        [
            padded[:, i : i + rows, j : j + columns]
            for i in range(height)
            for j in range(width)
        ],
        axis=-1,
    )
    return patches @ kernel.reshape(height * width * channels, kernels)


def max_pool(images: jax.Array) -> jax.Array:
    """2x2 max pooling; an odd last row or column is dropped, as `nn.max_pool` does.

    `nn.max_pool` takes a third longer for a training step on a CPU.
    """
    batch, height, width, channels = images.shape
    blocks = images[:, : height // 2 * 2, : width // 2 * 2].reshape(
        batch, height // 2, 2, width // 2, 2, channels
    )
    return blocks.max((2, 4))
