"""Which training images are trained on, and which are held out to choose by."""

from typing import NamedTuple

import numpy as np

from experiments.data.source import Source

# The draw is the same for every seed of a network.
SEED = 0


class Selection(NamedTuple):
    """Indices of training images, ascending; no image is in both."""

    train: np.ndarray
    validation: np.ndarray


def select(
    source: Source, *, train_size: int | None = None, validation: float = 0.0
) -> Selection:
    """Draws images at random, always the same ones.

    Those held out depend on `validation` alone, and a smaller training set is part of a
    larger one.

    Args:
        source: the dataset.
        train_size: number of images to train on, default all that are not held out.
        validation: fraction of the training images that is held out.

    Raises:
        ValueError: the dataset has not so many images.
    """
    count = source.sizes["train"]
    if not 0 <= validation < 1:
        raise ValueError(f"--validation is {validation}; expected 0 to less than 1")
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
    order = np.random.default_rng(SEED).permutation(count)
    return Selection(np.sort(order[:train_size]), np.sort(order[left:]))
