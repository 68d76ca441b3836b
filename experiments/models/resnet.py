"""ResNet-18 in the form for small images: He et al., arXiv 1512.03385."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResNet18(nn.Module):
    """A 3x3 stem without pooling, four stages of two basic blocks, a linear layer.

    Attributes:
        classes: number of classes.
        widths: channels of each stage.
        dtype: to compute in; the weights are float32.
    """

    classes: int
    widths: Sequence[int] = (64, 128, 256, 512)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = partial(nn.BatchNorm, use_running_average=not train, dtype=self.dtype)
        x = nn.Conv(self.widths[0], (3, 3), use_bias=False, dtype=self.dtype)(images)
        x = nn.relu(norm()(x))
        for stage, width in enumerate(self.widths):
            for block in range(2):
                stride = 2 if stage and not block else 1
                x = BasicBlock(width, stride, norm, self.dtype)(x)
        return nn.Dense(self.classes, dtype=self.dtype)(x.mean((1, 2)))


class BasicBlock(nn.Module):
    """Two 3x3 convs and a shortcut, which is a 1x1 conv where the shape changes."""

    width: int
    stride: int
    norm: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Feature maps `(batch, height, width, channels)` to the next."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype, padding="SAME")
        y = conv(self.width, (3, 3), strides=self.stride)(x)
        y = self.norm()(conv(self.width, (3, 3))(nn.relu(self.norm()(y))))
        if x.shape != y.shape:
            x = self.norm()(conv(self.width, (1, 1), strides=self.stride)(x))
        return nn.relu(x + y)
