"""Random crops and flips on the device, against slices of padded images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.data.augmentation import augmented

PAD = 2
run = jax.jit(augmented, static_argnums=2)
# No two pixels are equal, so that an image shows how it was moved.
IMAGE = np.arange(1, 1 + 5 * 6 * 2, dtype=np.uint8).reshape(5, 6, 2)


def candidates(image, pad):
    """All that may become of an image, by row, column and whether it is mirrored."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    moved = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            cut = padded[row : row + height, column : column + width]
            moved[row, column, False], moved[row, column, True] = cut, cut[:, ::-1]
    return moved


def test_images_are_moved_and_mirrored_and_every_way_is_as_likely():
    count = 5000
    images = jnp.broadcast_to(IMAGE, (count, *IMAGE.shape))
    result = run(jax.random.key(0), images, PAD)
    assert result.shape == images.shape and result.dtype == jnp.uint8
    flat = np.asarray(result).reshape(count, -1)
    counts = [
        (flat == moved.ravel()).all(axis=1).sum()
        for moved in candidates(IMAGE, PAD).values()
    ]
    assert sum(counts) == count
    # Each of 50 ways 100 times, give or take 10: five standard deviations at most.
    assert np.abs(np.array(counts) - 100).max() < 50


def test_an_image_can_leave_its_frame():
    images = jnp.full((500, 2, 2, 1), 7, jnp.uint8)
    result = np.asarray(run(jax.random.key(0), images, 3))
    assert {0, 7, 14, 28} == set(result.sum(axis=(1, 2, 3)).tolist())


def test_divided_images_are_augmented_alike_without_communication():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (16, 5, 5, 3), "u1"))
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    key = jax.random.key(0)
    program = jax.jit(
        partial(augmented, pad=1), in_shardings=(None, rows), out_shardings=rows
    )
    np.testing.assert_array_equal(program(key, images), run(key, images, 1))
    text = program.lower(key, images).compile().as_text()
    assert "num_partitions=8" in text
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all"))


def test_the_margin_is_not_negative():
    with pytest.raises(ValueError, match="pad is -1; expected 0 or more"):
        augmented(jax.random.key(0), jnp.zeros((1, 2, 2, 1), jnp.uint8), -1)
