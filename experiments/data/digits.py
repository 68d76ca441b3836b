"""Scikit-learn's handwritten digits, which need no download."""

from typing import Any

import numpy as np

# The split is the same for every seed of a network.
SEED = 0


def digits() -> dict[str, Any]:
    """1,797 handwritten digits of 8x8 pixels, half of each class to train on.

    >>> {split: images.shape for split, (images, _) in digits().items()}
    {'train': (898, 8, 8, 1), 'test': (899, 8, 8, 1)}
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images.astype(np.uint8).reshape(-1, 8, 8, 1),
        labels,
        test_size=0.5,
        stratify=labels,
        random_state=SEED,
    )
    return {"train": tuple(parts[::2]), "test": tuple(parts[1::2])}
