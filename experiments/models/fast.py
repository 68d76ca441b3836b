"""A network that learns fast, in the manner of Jordan, arXiv 2404.00498."""

import flax.linen as nn
import jax

from experiments.models.layers import Classifier, conv, max_pool


class Fast(Classifier):
    """A 2x2 conv of 24 channels, then three blocks of two 3x3 convs.

    The blocks have 64, 256 and 256 channels; the first conv of each is followed by 2x2
    max pooling, and both by batch normalisation and the activation. The largest value of
    each map goes to the linear layer. In the paper the 2x2 kernels are whitened and not
    trained; here they are kernels like others, which the method `whitened` whitens. Its
    activation is GELU.
    """

    smallest_image = 9  # one pixel is left of it
    in_a_row = True

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = self.norm(train)
        first, *others = self.channels((24, 64, 64, 256, 256, 256, 256))
        # Without padding.
        x = self.activate(conv(first, 2, dtype=self.dtype, padding=0)(images))
        for number, channels in enumerate(others):
            x = conv(channels, 3, dtype=self.dtype)(x)
            x = x if number % 2 else max_pool(x)
            x = self.activate(norm()(x))
        return self.logits(x.max((1, 2)))
