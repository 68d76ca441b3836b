"""Noise and blur, against their statistics."""

import numpy as np
import pytest

from experiments.data.corruption import CORRUPTIONS, blurred, corrupted, noisy
from experiments.data.images import Images

GREY = np.full((4, 32, 32, 3), 128, np.uint8)


@pytest.mark.parametrize("deviation", [0.04, 0.1])
def test_noise_has_its_deviation_and_no_mean(deviation):
    changed = noisy(GREY, np.random.default_rng(0), deviation) - 128
    assert changed.std() == pytest.approx(255 * deviation, rel=0.03)
    assert abs(changed.mean()) < 1


def test_blur_is_a_gaussian_window_in_each_image_and_channel():
    image = np.zeros((2, 15, 15, 2), np.uint8)
    image[0, 7, 7, 1] = 255
    changed = blurred(image, np.random.default_rng(0), 1.0)
    assert not changed[1].any() and not changed[0, ..., 0].any()
    rows, columns = np.mgrid[-7:8, -7:8]
    window = np.exp(-(rows**2 + columns**2) / 2)
    np.testing.assert_allclose(changed[0, ..., 1], 255 * window / window.sum(), atol=0.05)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_the_same_each_time_and_grows(kind):
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, GREY.shape, np.uint8)
    batches = [Images(images[:2], np.arange(2)), Images(images[2:], np.arange(2, 4))]
    apart = []
    for corruption in CORRUPTIONS[kind]:
        one, again = (list(corrupted(batches, corruption)) for _ in range(2))
        for batch, other, given in zip(one, again, batches, strict=True):
            assert batch.images.dtype == np.uint8 and (batch.labels == given.labels).all()
            np.testing.assert_array_equal(batch.images, other.images)
        changed = np.concatenate([batch.images for batch in one]).astype(float)
        apart.append(np.abs(changed - images).mean())
    assert 0 < apart[0] < apart[1] < apart[2]
