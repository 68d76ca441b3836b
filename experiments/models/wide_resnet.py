"""Wide residual networks: Zagoruyko and Komodakis, arXiv 1605.07146."""

import flax.linen as nn
import jax

from experiments.models.layers import Block, Classifier, conv, scaled


class WideResNet(Classifier):
    """A 3x3 conv, three stages of pre-activation blocks, and a linear layer.

    WideResNet-d-k: d convs along the way, shortcuts counted, and k times the channels of
    the ResNet for CIFAR-10: 16k, 32k and 64k. `width` multiplies the first conv's 16 too.

    Attributes:
        depth: d, which is 4 more than a multiple of 6.
        k: the factor of the channels.
    """

    depth: int = 28
    k: int = 10

    smallest_image = 4  # the last stage sees one pixel of it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = self.norm(train)
        x = conv(scaled(16, self.width), 3, dtype=self.dtype)(images)
        blocks = (self.depth - 4) // 6
        for stage in range(3):
            for block in range(blocks):
                x = PreActivationBlock(
                    scaled(16 * self.k * 2**stage, self.width),
                    stride=2 if stage and not block else 1,
                    activation=self.activate,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"Block_{stage * blocks + block}",
                )(x)
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
