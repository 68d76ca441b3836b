"""The stand-in for photographs."""

import numpy as np

from experiments.data.open import open_source


def test_photographs_are_of_many_sizes_always_the_same_and_told_apart_by_colour():
    source = open_source("experiments.data.stand_in:photographs")
    assert source.sizes == {"train": 300, "test": 100} and source.classes == 10
    assert source.shape == (None, None, 3)

    def seen(split, count):
        pairs = [source.examples(split)[i] for i in range(count)]
        colours = np.array([image.mean((0, 1)) for image, _ in pairs])
        colours -= colours.mean(axis=1, keepdims=True)
        return pairs, colours, np.array([label for _, label in pairs])

    pairs, train, labels = seen("train", 60)
    sizes = {size for image, _ in pairs for size in image.shape[:2]}
    assert len(sizes) > 20 and min(sizes) >= 250 and max(sizes) <= 500
    np.testing.assert_array_equal(source.examples("train")[5][0], pairs[5][0])
    centres = np.stack([train[labels == label].mean(axis=0) for label in range(10)])
    _, test, expected = seen("test", 40)
    guesses = ((test[:, None] - centres) ** 2).sum(-1).argmin(axis=1)
    assert (guesses == expected).mean() > 0.4  # by chance 0.1
