"""Scikit-learn's handwritten digits, which need no download."""

from typing import Any

import numpy as np


def digits() -> dict[str, Any]:
    """1,797 handwritten digits of 8x8 pixels, half of each class to train on.

    >>> {split: images.shape for split, (images, _) in digits().items()}
    {'train': (898, 8, 8, 1), 'test': (899, 8, 8, 1)}
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    # The same halves for every seed of a network.
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.5, stratify=labels, random_state=0
    )
    return {"train": (train, train_labels), "test": (test, test_labels)}
