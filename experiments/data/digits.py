"""Scikit-learn's handwritten digits, which need no download."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from experiments.data.examples import Examples
from experiments.data.source import Source

CLASSES = 10
# The split is the same for every seed of a network.
SEED = 0


@dataclass(frozen=True)
class Digits(Examples):
    """Half of the digits.

    Attributes:
        images: uint8 `(n, 8, 8)`, in 17 levels of grey.
        labels: `(n,)`.
    """

    images: np.ndarray
    labels: np.ndarray
    channels = 1

    def __len__(self) -> int:
        return len(self.labels)

    def version(self) -> None:
        """They come with scikit-learn."""

    def records(self, indices: Sequence[int]) -> Sequence[Any]:
        """Images and labels."""
        return [(self.images[index], self.labels[index]) for index in indices]

    def picture(self, record: Any) -> tuple[PIL.Image.Image, int]:
        """A digit."""
        image, label = record
        return PIL.Image.fromarray(image), int(label)

    def title(self, index: int) -> str:
        """Digits can always be read."""
        return f"digit {index}"


def digits() -> Source:
    """1,797 handwritten digits of 8x8 pixels, half of each class to train on.

    >>> digits().sizes
    {'train': 898, 'test': 899}
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images.astype(np.uint8).reshape(-1, 8, 8),
        labels,
        test_size=0.5,
        stratify=labels,
        random_state=SEED,
    )
    splits = {"train": Digits(*parts[::2]), "test": Digits(*parts[1::2])}
    return Source("digits", CLASSES, (8, 8, 1), splits)
