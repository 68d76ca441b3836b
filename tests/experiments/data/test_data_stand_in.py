"""The stand-in for photographs."""

import numpy as np

from experiments.data import source
from experiments.data.open import open_source


def test_photographs_are_of_many_sizes_always_the_same_and_told_apart_by_colour(
    monkeypatch,
):
    monkeypatch.setattr(source, "SAMPLED", 3)
    opened = open_source("experiments.data.stand_in:photographs")
    assert opened.sizes == {"train": 300, "test": 100} and opened.classes == 10
    assert opened.shape == (None, None, 3)
    (images, labels), (others, expected) = (
        zip(*opened.splits[split].__getitems__(range(20)), strict=True)
        for split in ("train", "test")
    )
    np.testing.assert_array_equal(opened.splits["train"][5][0], images[5])
    sizes = {size for image in images for size in image.shape[:2]}
    assert len(sizes) > 20 and min(sizes) >= 250 and max(sizes) <= 500
    train, test = (
        np.array([np.mean(image, (0, 1)) - image.mean() for image in part])
        for part in (images, others)
    )
    centres = np.stack([train[np.equal(labels, label)].mean(0) for label in range(10)])
    guesses = ((test[:, None] - centres) ** 2).sum(-1).argmin(axis=1)
    assert (guesses == expected).mean() > 0.4  # by chance 0.1
