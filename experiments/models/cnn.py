"""The shallow network, small enough to train many at once on any device."""

import flax.linen as nn
import jax

from experiments.models.convolution import convolve
from experiments.models.layers import Classifier, max_pool


class CNN(Classifier):
    """Three 3x3 convs of 32, 64 and 128 channels, then a linear layer.

    Each conv is followed by batch normalisation if `batch_norm`, the activation, and 2x2
    max pooling. The initialization is LeCun's, Flax's default.
    """

    batch_norm: bool = True

    smallest_image = 8  # one pixel is left of it
    in_a_row = True

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = self.norm(train)
        x = images
        for channels in self.channels((32, 64, 128)):
            x = nn.Conv(
                channels,
                (3, 3),
                padding=1,
                use_bias=not self.batch_norm,
                dtype=self.dtype,
                conv_general_dilated=convolve,
            )(x)
            x = norm()(x) if self.batch_norm else x
            x = max_pool(self.activate(x))
        return self.logits(x.reshape(len(x), -1))
