"""Labelled images, and the parts of a dataset."""

from typing import Any, NamedTuple


class Images(NamedTuple):
    """Images `(n, height, width, channels)`, uint8, and their labels `(n,)`, int32."""

    images: Any
    labels: Any


class Dataset(NamedTuple):
    """A dataset that fits into memory.

    Attributes:
        train: images to train on.
        validation: images held out of the training set, to choose by; maybe none.
        test: images to score, once.
        classes: number of classes.
        mean: of each channel of the training images, float32 `(channels,)`.
        deviation: standard deviation likewise, 1 where it is 0.
    """

    train: Images
    validation: Images
    test: Images
    classes: int
    mean: Any
    deviation: Any
