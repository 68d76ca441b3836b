"""A dataset that fits into memory, from a source."""

import math
from pathlib import Path

import numpy as np

from experiments.data.cache import Track, decoded
from experiments.data.images import Dataset, Images
from experiments.data.selection import select
from experiments.data.source import Source

SUMMED_AT_ONCE = 500


def load(
    source: Source,
    *,
    train_size: int | None = None,
    validation: float = 0.0,
    cache_dir: Path | None = None,
    track: Track = lambda starts, _: starts,
) -> Dataset:
    """All images of a source, and of its training images those that are wanted.

    Args:
        source: of images of one size.
        train_size: number of training images, a random draw that is always the same;
            default all that are not held out.
        validation: fraction of the training images that is held out.
        cache_dir: where decoded images are kept; see `cache.decoded`.
        track: shows the progress of decoding, as `rich.progress.track` does.

    Raises:
        ValueError: the images have several sizes or cannot be read; or `train_size` or
            `validation` does not fit the source.
        OSError: the cache cannot be written.
    """
    if None in source.shape:
        raise ValueError(
            f"--dataset {source.name} has images of shape {source.shape}; expected "
            "images of one size"
        )
    selection = select(source, train_size=train_size, validation=validation)
    images, test = (
        decoded(source, split, cache_dir=cache_dir, track=track)
        for split in ("train", "test")
    )
    train, held_out = (_take(images, indices) for indices in selection)
    mean, deviation = moments(train.images)
    return Dataset(train, held_out, test, source.classes, mean, deviation)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float32; a deviation of 0 becomes 1.

    The sums are exact, so that neither depends on the order of the images.

    >>> mean, deviation = moments(np.array([[[[3]]], [[[5]]]], np.uint8))
    >>> mean.tolist(), deviation.tolist()
    ([4.0], [1.0])
    """
    channels = images.shape[-1]
    sums, squares = np.zeros((2, *images.shape[1:]), np.uint64)
    for start in range(0, len(images), SUMMED_AT_ONCE):
        part = images[start : start + SUMMED_AT_ONCE]
        sums += part.sum(axis=0, dtype=np.uint32)
        squares += np.square(part, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    count = images.size // channels
    mean, deviation = np.ones((2, channels), np.float32)
    for channel in range(channels):
        total, square = (int(x[..., channel].sum()) for x in (sums, squares))
        mean[channel] = total / count
        variance = (count * square - total**2) / count**2  # of whole numbers
        if variance:
            deviation[channel] = math.sqrt(variance)
    return mean, deviation


def _take(images: Images, indices: np.ndarray) -> Images:
    if len(indices) == len(images.labels):
        return images
    return Images(*(x[indices] for x in images))
