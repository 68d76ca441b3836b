"""Wide residual networks: Zagoruyko and Komodakis, arXiv 1605.07146."""

import flax.linen as nn
import jax

from experiments.models.layers import Block, Classifier, conv, scaled


class WideResNet(Classifier):
    """A 3x3 conv, three stages of pre-activation blocks, and a linear layer.

    WideResNet-d-k: d convs along the way, shortcuts counted, and k times the channels of
    the ResNet for CIFAR-10: 16k, 32k and 64k. `width` multiplies the first conv's 16 too.
    The depth d is 4 more than a multiple of 6.
    """

    depth: int = 28
    k: int = 10

    smallest_image = 4  # the last stage sees one pixel of it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = self.norm(train)
        x = conv(scaled(16, self.width), 3, dtype=self.dtype)(images)
        blocks = ((self.depth - 4) // 6,) * 3
        x = self.residual(PreActivationBlock, 16 * self.k, blocks, norm, x)
        return self.logits(self.activate(norm()(x)).mean((1, 2)))


class PreActivationBlock(Block):
    """Two 3x3 convs of normalised and activated maps, and a shortcut.

    The shortcut is a 1x1 conv of these where the number of channels changes.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Feature maps `(batch, height, width, channels)` to the next."""
        active = self.activation(self.norm()(x))
        y = self.conv(self.channels, 3, self.stride)(active)
        y = self.conv(self.channels, 3)(self.activation(self.norm()(y)))
        if x.shape != y.shape:
            x = self.conv(self.channels, 1, self.stride)(active)
        return x + y
