"""The losses that the library has not, against loops over taps; steps down a penalty."""

import jax
import numpy as np
import pytest
from scipy import signal

from experiments import losses
from experiments.losses import Options
from tests.experiments.test_interventions import (
    PARAMS,
    mean_squared_cosine,
    on_images,
    promoting_optax,
)
from tests.library import oracle


def random_kernel(shape=(3, 3, 2, 4)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (2, 3, 1, 3), (1, 1, 4, 3)])
def test_squared_cosine_on_images_is_a_loop_over_taps(shape):
    weights = random_kernel(shape)
    result = losses.squared_cosine_on_images(weights)
    np.testing.assert_allclose(result, on_images(oracle.float64(weights)), rtol=2e-4)


def test_squared_cosine_on_images_is_that_of_maps_of_random_images():
    """The exact expectation: a sum over the columns of a root of the covariance."""
    weights, size = oracle.float64(random_kernel()), 5
    pixels = list(np.ndindex(size, size))
    covariance = [[0.9 ** np.hypot(y - v, x - u) for v, u in pixels] for y, x in pixels]
    values, vectors = np.linalg.eigh(covariance)
    images = (vectors * np.sqrt(values)).T.reshape(-1, size, size)
    products = np.zeros((4, 4))
    for image in images:
        for c in range(2):  # the channels are independent of each other
            maps = [
                signal.correlate(image, weights[..., c, m], "valid") for m in range(4)
            ]
            products += np.array([[np.sum(a * b) for b in maps] for a in maps])
    result = losses.squared_cosine_on_images(np.float32(weights))
    np.testing.assert_allclose(result, mean_squared_cosine(products), rtol=2e-4)


@pytest.mark.parametrize(
    "penalty", [losses.squared_cosine, losses.squared_cosine_on_images]
)
def test_squared_cosines_are_in_0_to_1_whatever_the_scale(penalty):
    weights = random_kernel()
    same = np.repeat(weights[..., :1], 4, -1) * np.float32([1, -2, 3, 0.5])
    np.testing.assert_allclose(penalty(same), 1, rtol=1e-5)
    np.testing.assert_allclose(penalty(100 * weights), penalty(weights), rtol=1e-5)
    assert penalty(weights[..., :1]) == 0
    assert penalty(np.zeros_like(weights)) == 0


@promoting_optax
def test_steps_down_a_penalty_are_those_of_adam():
    penalty = losses.Penalty(lambda kernel: 0.5 * (kernel**2).sum())
    params = {"Conv_0": PARAMS["Conv_0"], "Dense_0": PARAMS["Dense_0"]}
    result = penalty.minimize(params, 3, Options())
    weights = oracle.float64(params["Conv_0"]["kernel"])
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in (1, 2, 3):  # the gradient of this penalty is the kernel itself
        first = 0.9 * first + 0.1 * weights
        second = 0.999 * second + 0.001 * weights**2
        ratio = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights = weights - 2e-3 * ratio
    # Of weights near 0, float32 keeps what it keeps of a step of 2e-3.
    np.testing.assert_allclose(result["Conv_0"]["kernel"], weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(
        result["Dense_0"]["kernel"], params["Dense_0"]["kernel"]
    )


@pytest.mark.parametrize(
    ("devices", "part", "numbers"),
    [(1, 4, [0, 1]), (4, 4, [0, 4]), (1, 2, [0, 1, 2, 3]), (4, 2, [0, 2, 4, 6])],
)
def test_a_part_of_the_images_decides_where_it_is_enough(
    devices, part, numbers, monkeypatch
):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    images = np.broadcast_to(np.arange(8.0)[:, None, None, None], (8, 4, 4, 4))
    np.testing.assert_array_equal(losses.enough_of(images, part), images[numbers])
    np.testing.assert_array_equal(losses.enough_of(images, 1), images)
    few = images[:, :3, :2]  # of four channels 32 samples are needed: of six images
    expected = few[:6] if devices == 1 else few
    np.testing.assert_array_equal(losses.enough_of(few, part), expected)
    np.testing.assert_array_equal(losses.enough_of(few[:, :1], part), few[:, :1])
