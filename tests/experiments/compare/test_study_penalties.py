"""Penalties on kernels against plain loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from experiments.study import penalties
from tests.library import oracle


def kernel(shape=(3, 3, 2, 4), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mean_squared_cosine(products):
    """Of inner products `(M, M)`, over pairs."""
    outputs = len(products)
    return np.mean(
        [
            products[i, j] ** 2 / products[i, i] / products[j, j]
            for i, j in oracle.pairs_of(outputs, "all")
        ]
    )


def test_squared_cosine_is_its_definition():
    weights = kernel()
    flat = oracle.float64(weights).reshape(-1, 4)
    expected = mean_squared_cosine(flat.T @ flat)
    np.testing.assert_allclose(penalties.squared_cosine(weights), expected, rtol=1e-5)


def products_on_images(weights, correlation=0.9):
    """Sum over all pairs of taps, each weighted by how alike its two pixels are."""
    height, width, inputs, outputs = weights.shape
    products = np.zeros((outputs, outputs))
    taps = [(y, x) for y in range(height) for x in range(width)]
    for i in range(outputs):
        for j in range(outputs):
            for c in range(inputs):
                for y, x in taps:
                    for v, u in taps:
                        products[i, j] += (
                            weights[y, x, c, i]
                            * weights[v, u, c, j]
                            * correlation ** np.hypot(y - v, x - u)
                        )
    return products


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (2, 3, 1, 3), (1, 1, 4, 3)])
def test_squared_cosine_on_images_is_a_loop_over_taps(shape):
    weights = kernel(shape)
    expected = mean_squared_cosine(products_on_images(oracle.float64(weights)))
    result = penalties.squared_cosine_on_images(weights)
    np.testing.assert_allclose(result, expected, rtol=2e-4)


def test_squared_cosine_on_images_is_that_of_maps_of_random_images():
    """The exact expectation: a sum over the columns of a root of the covariance."""
    weights, size = oracle.float64(kernel()), 5
    pixels = [(y, x) for y in range(size) for x in range(size)]
    covariance = np.array(
        [[0.9 ** np.hypot(y - v, x - u) for v, u in pixels] for y, x in pixels]
    )
    values, vectors = np.linalg.eigh(covariance)
    images = (vectors * np.sqrt(values)).T.reshape(-1, size, size)
    products = np.zeros((4, 4))
    for image in images:
        for c in range(2):  # the channels are independent of each other
            maps = [
                signal.correlate(image, weights[..., c, m], mode="valid")
                for m in range(4)
            ]
            products += np.array([[np.sum(a * b) for b in maps] for a in maps])
    np.testing.assert_allclose(products, 9 * products_on_images(weights), rtol=1e-9)
    result = penalties.squared_cosine_on_images(np.float32(weights))
    np.testing.assert_allclose(result, mean_squared_cosine(products), rtol=2e-4)


@pytest.mark.parametrize(
    "penalty", [penalties.squared_cosine, penalties.squared_cosine_on_images]
)
def test_it_is_between_nothing_and_one_whatever_the_scale(penalty):
    weights = kernel()
    same = np.repeat(weights[..., :1], 4, -1) * np.float32([1, -2, 3, 0.5])
    np.testing.assert_allclose(penalty(same), 1, rtol=1e-5)
    np.testing.assert_allclose(penalty(100 * weights), penalty(weights), rtol=1e-5)
    assert penalty(weights[..., :1]) == 0
    assert penalty(np.zeros_like(weights)) == 0


def test_orthogonal_kernels_are_so_in_one_metric_only():
    weights = np.zeros((1, 2, 1, 2), np.float32)
    weights[0, 0, 0, 0] = weights[0, 1, 0, 1] = 1
    assert penalties.squared_cosine(weights) == 0
    result = penalties.squared_cosine_on_images(weights)
    np.testing.assert_allclose(result, 0.9**2, rtol=1e-5)


def params():
    return {
        "Conv_0": {"kernel": kernel(), "bias": np.ones(4, np.float32)},
        "Dense_0": {"kernel": kernel((5, 3))},
    }


def norm(weights):
    return 0.5 * (weights**2).sum()


def test_a_penalty_is_the_sum_over_conv_kernels():
    two = params() | {"Conv_1": {"kernel": kernel((1, 1, 4, 2))}}
    expected = sum(norm(two[layer]["kernel"]) for layer in ("Conv_0", "Conv_1"))
    np.testing.assert_allclose(penalties.of_layers(norm)(two), expected, rtol=1e-6)


def test_add_gradient_is_to_add_the_penalty_to_the_loss():
    def loss(params):
        return sum((leaf**3).sum() for leaf in jax.tree.leaves(params))

    penalty = penalties.of_layers(penalties.squared_cosine)
    transform = penalties.add_gradient(penalty, 0.7)
    updates, _ = jax.jit(transform.update)(
        jax.jit(jax.grad(loss))(params()), transform.init(params()), params()
    )
    expected = jax.jit(jax.grad(lambda p: loss(p) + 0.7 * penalty(p)))(params())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        updates,
        expected,
    )


@pytest.mark.usefixtures("relaxed_jax")  # optax's Adam promotes its count
def test_steps_down_a_penalty_are_those_of_adam():
    penalty = penalties.of_layers(norm)
    result = penalties.minimize(penalty, params(), 3)
    weights = oracle.float64(params()["Conv_0"]["kernel"])
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in (1, 2, 3):  # the gradient of this penalty is the kernel itself
        first = 0.9 * first + 0.1 * weights
        second = 0.999 * second + 0.001 * weights**2
        ratio = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights = weights - 2e-3 * ratio
    # Of weights near 0, float32 keeps what it keeps of a step of 2e-3.
    np.testing.assert_allclose(result["Conv_0"]["kernel"], weights, rtol=1e-5, atol=1e-7)
    for layer, leaf in (("Conv_0", "bias"), ("Dense_0", "kernel")):
        np.testing.assert_array_equal(result[layer][leaf], params()[layer][leaf])
    assert jnp.asarray(result["Conv_0"]["kernel"]).dtype == jnp.float32
