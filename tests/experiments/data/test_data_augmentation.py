"""Random crops and flips on the device, against slices of padded images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.data.augmentation import augmented

KEY = jax.random.key(0)
run = jax.jit(augmented, static_argnums=2)


@pytest.mark.parametrize(("shape", "pad"), [((5, 6, 2), 2), ((2, 2, 1), 3)])
def test_images_are_moved_and_mirrored_and_every_way_is_as_likely(shape, pad):
    # No two pixels are equal, so that an image shows how it was moved.
    image = np.arange(1, 1 + np.prod(shape), dtype=np.uint8).reshape(shape)
    ways = 2 * pad + 1
    count = 200 * ways**2
    result = run(KEY, jnp.broadcast_to(image, (count, *shape)), pad)
    assert result.shape == (count, *shape) and result.dtype == jnp.uint8
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    seen = [row.tobytes() for row in np.asarray(result)]
    expected: dict[bytes, int] = {}  # how often, of an image that left its frame too
    for row in range(ways):
        for column in range(ways):
            cut = padded[row : row + shape[0], column : column + shape[1]]
            for moved in (cut, cut[:, ::-1]):
                expected[moved.tobytes()] = expected.get(moved.tobytes(), 0) + 100
    assert set(seen) == set(expected)
    for moved, times in expected.items():  # five standard deviations at most
        assert abs(seen.count(moved) - times) < 5 * times**0.5


def test_divided_images_are_augmented_alike_without_communication():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (16, 5, 6, 2), "u1"))
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    program = jax.jit(
        partial(augmented, pad=1), in_shardings=(None, rows), out_shardings=rows
    )
    program = program.lower(KEY, images).compile()
    np.testing.assert_array_equal(
        program(KEY, jax.device_put(images, rows)), run(KEY, images, 1)
    )
    text = program.as_text()
    assert "num_partitions=8" in text
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all"))
