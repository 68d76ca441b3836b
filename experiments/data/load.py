"""Which images of a source are trained on, and all of them in memory."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from experiments.data.images import Dataset, Images
from experiments.data.source import Source

AT_ONCE = 500

# Shows the progress of decoding, as `rich.progress.track` does.
Track = Callable[[Iterable[int], str], Iterable[int]]


class Selection(NamedTuple):
    """Indices of training images, ascending; no image is in both."""

    train: np.ndarray
    validation: np.ndarray


def select(
    source: Source, *, train_size: int | None = None, validation: float = 0.0
) -> Selection:
    """Draws images at random, always the same ones.

    Held out is the fraction `validation` of them, whatever `train_size` is; that is by
    default all that are left, and a smaller set is part of a larger one.
    """
    count = source.sizes["train"]
    held_out = round(count * validation)
    if validation and not 0 < held_out < count:
        raise ValueError(
            f"--validation is {validation}, which is {held_out} of the {count} training "
            f"images of {source.name}; expected some, and not all"
        )
    left = count - held_out
    train_size = left if train_size is None else train_size
    if not source.classes <= train_size <= left:
        raise ValueError(
            f"--train-size is {train_size}; expected {source.classes} (the classes of "
            f"{source.name}) to {left} (its training images"
            f"{' less those held out' if held_out else ''})"
        )
    order = np.random.default_rng(0).permutation(count)  # for every seed of a network
    return Selection(np.sort(order[:train_size]), np.sort(order[left:]))


def load(
    source: Source,
    *,
    train_size: int | None = None,
    validation: float = 0.0,
    track: Track = lambda starts, _: starts,
) -> Dataset:
    """The images that `select` draws, decoded."""
    if None in source.shape:
        raise ValueError(
            f"--dataset {source.name} has images of several sizes; expected a size to "
            "cut them to, --image-size"
        )
    chosen = select(source, train_size=train_size, validation=validation)
    train = decoded(source, "train", chosen.train, track)
    held_out = decoded(source, "train", chosen.validation, track)
    test = decoded(source, "test", np.arange(source.sizes["test"]), track)
    return Dataset(train, held_out, test, source.classes, *moments(train.images))


def decoded(source: Source, split: str, indices: np.ndarray, track: Track) -> Images:
    """Images of a split, of one size."""
    examples, shape = source.splits[split], tuple(x or 0 for x in source.shape)
    images, labels = (
        np.empty((len(indices), *shape), np.uint8),
        np.empty(len(indices), np.int32),
    )
    for start in track(range(0, len(indices), AT_ONCE), f"decoding {source.name}"):
        part = indices[start : start + AT_ONCE]
        for at, (image, label) in enumerate(examples.read(part), start):
            if image.shape != shape:
                found, expected = ("x".join(map(str, x)) for x in (image.shape, shape))
                raise ValueError(
                    f"{examples.title(indices[at])} is {found}; expected {expected}, the "
                    "size of the others, or a size to cut all to, --image-size"
                )
            images[at], labels[at] = image, label
    return Images(images, labels)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float32; a deviation of 0 becomes 1.

    Both are those of the counts of each value, and so do not depend on the order of the
    images.

    >>> mean, deviation = moments(np.array([[[[3]]], [[[5]]]], np.uint8))
    >>> mean.tolist(), deviation.tolist()
    ([4.0], [1.0])
    """
    values, channels = np.arange(256.0), images.shape[-1]
    counts = np.zeros((channels, 256))
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE].reshape(-1, channels)
        counts += [np.bincount(column, minlength=256) for column in part.T]
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    constant = (counts > 0).sum(1) == 1
    return mean.astype(np.float32), np.where(constant, 1, deviation).astype(np.float32)
