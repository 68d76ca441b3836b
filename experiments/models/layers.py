"""What the networks are made of."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.convolution import convolve

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
}
# He et al., arXiv 1502.01852, by the channels that come out, as the published code of
# all these networks does.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Classifier(nn.Module):
    """What all the networks have in common."""

    classes: int
    width: float = 1.0  # multiplies the channels
    widths: tuple[int, ...] = ()  # in its place: the channels of each conv layer
    activation: str = "relu"
    dtype: Any = jnp.float32  # to compute in; the weights are float32
    momentum: float = 0.9  # of the running averages

    in_a_row = False  # whether each conv layer's width is free: none are added up

    @property
    def smallest_image(self) -> int:
        """Height and width of the smallest image that it can take."""
        return 1

    def channels(self, usual: Sequence[int]) -> list[int]:
        """Of each conv layer, of those that a network in a row usually has."""
        if not self.widths:
            return [scaled(channels, self.width) for channels in usual]
        if len(self.widths) != len(usual):
            raise ValueError(
                f"--widths is {' '.join(map(str, self.widths))}; expected {len(usual)} "
                "numbers, one a conv layer"
            )
        return list(self.widths)

    def activate(self, x: jax.Array) -> jax.Array:
        """The activation."""
        return ACTIVATIONS[self.activation](x)

    def norm(self, train: bool) -> Callable[[], nn.BatchNorm]:
        """What makes its batch normalisations."""
        return partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.momentum,
            dtype=self.dtype,
        )

    def residual(
        self,
        block_type: type["Block"],
        channels: int,
        blocks: Sequence[int],
        norm: Callable[[], nn.BatchNorm],
        x: jax.Array,
    ) -> jax.Array:
        """Stages of blocks, each of twice the channels, at half the height."""
        number = 0
        for stage, count in enumerate(blocks):
            for block in range(count):
                x = block_type(
                    scaled(channels * 2**stage, self.width),
                    stride=2 if stage and not block else 1,
                    activation=self.activate,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"Block_{number}",
                )(x)
                number += 1
        return x

    def logits(self, features: jax.Array) -> jax.Array:
        """The linear layer, `(batch, classes)`."""
        return nn.Dense(self.classes, dtype=self.dtype)(features).astype(jnp.float32)


class Block(nn.Module):
    """What residual blocks have in common."""

    channels: int
    stride: int  # of one of its convs
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
    padding: int | None = None,
) -> nn.Conv:
    """A convolution, by default padded so that an odd window keeps the image's size."""
    return nn.Conv(
        channels,
        (window, window),
        strides=stride,
        padding=window // 2 if padding is None else padding,
        dtype=dtype,
        use_bias=use_bias,
        kernel_init=HE,
        conv_general_dilated=convolve,
    )


def scaled(channels: int, width: float) -> int:
    """That many channels, times `width`.

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
