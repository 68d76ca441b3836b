"""Residual networks: He et al., arXiv 1512.03385."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax

from experiments.models.layers import Block, Classifier, conv, scaled


class ResNet(Classifier):
    """A stem, four stages of residual blocks, and a linear layer.

    The stem is a 3x3 conv, as is usual for CIFAR-10, or that of ImageNet: a 7x7 conv of
    stride 2, and max pooling of 3x3 pixels with stride 2.
    """

    blocks: Sequence[int] = (2, 2, 2, 2)  # of each stage
    bottleneck: bool = False
    imagenet: bool = False

    @property
    def smallest_image(self) -> int:
        """Size of an image of which the last stage sees one pixel."""
        return 32 if self.imagenet else 8

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = self.norm(train)
        stem = partial(conv, scaled(64, self.width), dtype=self.dtype)
        x = stem(window=7, stride=2)(images) if self.imagenet else stem(window=3)(images)
        x = self.activate(norm()(x))
        if self.imagenet:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        block_type = Bottleneck if self.bottleneck else BasicBlock
        x = self.residual(block_type, 64, self.blocks, norm, x)
        return self.logits(x.mean((1, 2)))


class BasicBlock(Block):
    """Two 3x3 convs, and a shortcut, which is a 1x1 conv where the shape changes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Feature maps `(batch, height, width, channels)` to the next."""
        y = self.activation(self.norm()(self.conv(self.channels, 3, self.stride)(x)))
        y = self.norm()(self.conv(self.channels, 3)(y))
        if x.shape != y.shape:
            x = self.norm()(self.conv(self.channels, 1, self.stride)(x))
        return self.activation(x + y)


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convs, and a shortcut as in `BasicBlock`.

    The last conv has four times the channels. The stride is the 3x3 conv's, which costs
    a little and gains accuracy over the first conv's, where the paper has it.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Feature maps `(batch, height, width, channels)` to the next."""
        y = self.activation(self.norm()(self.conv(self.channels, 1)(x)))
        y = self.activation(self.norm()(self.conv(self.channels, 3, self.stride)(y)))
        y = self.norm()(self.conv(4 * self.channels, 1)(y))
        if x.shape != y.shape:
            x = self.norm()(self.conv(4 * self.channels, 1, self.stride)(x))
        return self.activation(x + y)
