"""What the networks are made of."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.convolution import convolve
from experiments.models.normalization import BatchNorm

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "elu": nn.elu,
}
# He et al., arXiv 1502.01852, by the channels that come out, as the published code of
# all these networks does.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Classifier(nn.Module):
    """What all the networks have in common.

    Attributes:
        classes: number of classes.
        width: multiplies the channels.
        activation: a name in `ACTIVATIONS`.
        dtype: to compute in; the weights are float32.
        momentum: of the running averages of batch normalisation.
        smallest_image: height and width of the smallest image that it can take.
    """

    classes: int
    width: float = 1.0
    activation: str = "relu"
    dtype: Any = jnp.float32
    momentum: float = 0.9

    smallest_image = 1

    def activate(self, x: jax.Array) -> jax.Array:
        """The activation."""
        return ACTIVATIONS[self.activation](x)

    def norm(self, train: bool) -> Callable[[], BatchNorm]:
        """What makes its batch normalisations."""
        return partial(
            BatchNorm,
            use_running_average=not train,
            momentum=self.momentum,
            dtype=self.dtype,
        )

    def logits(self, features: jax.Array) -> jax.Array:
        """The linear layer, `(batch, classes)`."""
        return nn.Dense(self.classes, dtype=self.dtype)(features).astype(jnp.float32)


class Block(nn.Module):
    """What residual blocks have in common.

    Attributes:
        channels: of its maps.
        stride: of one of its convs.
        activation: between its convs.
        norm: makes a batch normalisation.
        dtype: to compute in.
    """

    channels: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[], nn.Module]
    dtype: Any

    def conv(self, channels: int, window: int, stride: int = 1) -> nn.Conv:
        """A convolution in the block's precision."""
        return conv(channels, window, stride, dtype=self.dtype)


def conv(
    channels: int,
    window: int,
    stride: int = 1,
    *,
    dtype: Any,
    use_bias: bool = False,
) -> nn.Conv:
    """A convolution that is padded as much on every side.

    Args:
        channels: that come out.
        window: height and width of the kernel, an odd number.
        stride: along both axes.
        dtype: to compute in.
        use_bias: whether it adds a number to each channel.
    """
    return nn.Conv(
        channels,
        (window, window),
        strides=stride,
        padding=window // 2,
        dtype=dtype,
        use_bias=use_bias,
        kernel_init=HE,
        conv_general_dilated=convolve,
    )


def scaled(channels: int, width: float) -> int:
    """That many channels, times `width`.

    Raises:
        ValueError: there would be none.

    >>> scaled(64, 0.25)
    16
    """
    if not (left := round(channels * width)):
        raise ValueError(
            f"--width is {width}, which leaves none of a layer's {channels} channels; "
            f"expected {1 / channels} or more"
        )
    return left


def max_pool(images: jax.Array) -> jax.Array:
    """2x2 max pooling; an odd last row or column is dropped, as `nn.max_pool` does.

    `nn.max_pool` takes nine times as long for a training step on a CPU.
    """
    height, width = (size // 2 * 2 for size in images.shape[1:3])
    images = images[:, :height, :width]
    rows = jnp.maximum(images[:, ::2], images[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
