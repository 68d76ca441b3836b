"""Streamed images: epochs that are gone on with, and any number of channels."""

import numpy as np
import pytest

from experiments.data.load import Selection
from experiments.data.open import open_source
from experiments.fit.feeds import IMAGENET_MEAN, Streamed

BATCH, STEPS = 8, 4  # a multiple of the devices
SPLIT = Selection(np.arange(BATCH * STEPS + 3), np.arange(0))


def streamed(augment=True):
    source = open_source("digits")
    return Streamed(source, SPLIT, BATCH, image_size=9, workers=0, augment=augment)


def trained_on(feed, *chunks):
    """The batches that a feed has for these steps of these epochs."""
    found = []
    for epoch, *steps in chunks:
        for part, batch in feed.parts(epoch, range(*steps)):
            assert len(part) == 1
            found.append(tuple(map(np.asarray, batch)))
    return found


@pytest.mark.parametrize("augment", [True, False])
def test_a_run_that_starts_again_inside_an_epoch_sees_the_same_images(augment):
    whole = trained_on(streamed(augment), (1, 0, 4), (2, 0, 4))
    assert len({pixels.tobytes() for pixels, _ in whole}) == 8
    for start in range(1, 4):
        rest = (1, start, 3), (1, 3, 4), (2, 0, 4)
        np.testing.assert_equal(trained_on(streamed(augment), *rest), whole[start:])
    there_and_back = trained_on(streamed(), (1, 0, 2), (1, 2, 4), (1, 0, 2), (1, 2, 4))
    np.testing.assert_equal(there_and_back[4:], there_and_back[:4])


def test_images_without_colours_are_normalised_by_one_mean():
    feed = streamed()
    assert feed.shape == (9, 9, 1)
    assert feed.sample.shape == (len(SPLIT.train), 9, 9, 1)
    assert feed.mean == pytest.approx([IMAGENET_MEAN.mean()])
    assert feed.deviation.shape == (1,)
    batch = next(feed.score("test"))
    assert batch.images.shape[1:] == (9, 9, 1)
