"""Noise and blur, made on the fly: what a network trained on clean images is scored on.

Amounts are those of CIFAR-10-C (Hendrycks and Dietterich, arXiv 1903.12261).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from scipy import ndimage

from experiments.data.images import Images

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noisy(
    images: np.ndarray, generator: np.random.Generator, deviation: float
) -> np.ndarray:
    """With normal noise in every channel, of that deviation; white is 1."""
    return images + 255 * deviation * generator.standard_normal(images.shape, np.float32)


def blurred(
    images: np.ndarray, generator: np.random.Generator, sigma: float
) -> np.ndarray:
    """Through a Gaussian window, of that deviation in pixels."""
    return ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))


# Severities 1, 3 and 5 of each.
CORRUPTIONS: dict[str, tuple[Corruption, ...]] = {
    "noise": tuple(partial(noisy, deviation=x) for x in (0.04, 0.08, 0.10)),
    "blur": tuple(partial(blurred, sigma=x) for x in (0.4, 0.7, 1.0)),
}


def corrupted(batches: Iterable[Images], corruption: Corruption) -> Iterator[Images]:
    """Batches of uint8 images, corrupted in the same way each time."""
    for number, (images, labels) in enumerate(batches):
        changed = corruption(np.asarray(images), np.random.default_rng(number))
        yield Images(changed.round().clip(0, 255).astype(np.uint8), labels)
