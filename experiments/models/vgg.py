"""VGG-19 with batch normalisation: Simonyan and Zisserman, arXiv 1409.1556."""

import flax.linen as nn
import jax
import numpy as np

from experiments.models.layers import Classifier, conv, max_pool

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class VGG19(Classifier):
    """Sixteen 3x3 convs in five stages that end in 2x2 max pooling, and a linear layer.

    The one linear layer, where the paper has three, is the form for CIFAR-10. The convs
    have biases, as published, although batch normalisation takes them away.
    """

    smallest_image = 32  # one pixel is left of it
    in_a_row = True

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `(batch, classes)` of images `(batch, height, width, channels)`."""
        norm = self.norm(train)
        x = images
        usual = [channels for channels, layers in STAGES for _ in range(layers)]
        ends = np.cumsum([layers for _, layers in STAGES])
        for number, channels in enumerate(self.channels(usual), 1):
            x = conv(channels, 3, use_bias=True, dtype=self.dtype)(x)
            x = self.activate(norm()(x))
            if number in ends:
                x = max_pool(x)
        return self.logits(x.reshape(len(x), -1))
