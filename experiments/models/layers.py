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


def conv(
    channels: int,
    window: int,
    stride: int = 1,
    *,
    dtype: Any,
    use_bias: bool = False,
    kernel_init: nn.initializers.Initializer = HE,
) -> nn.Conv:
    """A convolution that is padded as much on every side.

    Args:
        channels: that come out.
        window: height and width of the kernel, an odd number.
        stride: along both axes.
        dtype: to compute in.
        use_bias: whether it adds a number to each channel.
        kernel_init: draws the kernel.
    """
    return nn.Conv(
        channels,
        (window, window),
        strides=stride,
        padding=window // 2,
        dtype=dtype,
        use_bias=use_bias,
        kernel_init=kernel_init,
        conv_general_dilated=convolve,
    )


def batch_norm(train: bool, momentum: float, dtype: Any) -> Callable[[], BatchNorm]:
    """What makes the batch normalisations of a network."""
    return partial(
        BatchNorm, use_running_average=not train, momentum=momentum, dtype=dtype
    )


def scaled(channels: int, width: float) -> int:
    """That many channels, times `width`; one at least.

    >>> scaled(64, 0.25), scaled(3, 0.1)
    (16, 1)
    """
    return max(1, round(channels * width))


def max_pool(images: jax.Array) -> jax.Array:
    """2x2 max pooling; an odd last row or column is dropped, as `nn.max_pool` does.

    `nn.max_pool` takes nine times as long for a training step on a CPU.
    """
    height, width = (size // 2 * 2 for size in images.shape[1:3])
    images = images[:, :height, :width]
    rows = jnp.maximum(images[:, ::2], images[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
