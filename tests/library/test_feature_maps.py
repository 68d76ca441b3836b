"""Similarity of maps, and what the similarity of kernels says about it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import normal, seeds, single

SHAPES = [(2, 5, 3), (1, 4, 3, 2), (3, 2, 3, 4), (2, 2, 1, 3, 2), (2, 4, 4, 1)]


@pytest.mark.usefixtures("x64")
@given(st.sampled_from(SHAPES), st.booleans(), seeds)
def test_is_its_definition(shape, center, seed):
    maps = normal(seed, shape) + 0.5
    result = cs.feature_map_similarity(jnp.asarray(maps), center=center)
    expected = oracle.feature_map_similarity(maps, center=center)
    assert result.shape == ()
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-14)


def test_by_hand():
    # Two images of two maps: cosines 0.6 and -1, whose absolute values are averaged.
    maps = jnp.array([[[1.0, 3.0], [0.0, 4.0]], [[1.0, -2.0], [1.0, -2.0]]])
    np.testing.assert_allclose(cs.feature_map_similarity(maps), 0.8, rtol=1e-6)


def test_center_takes_the_common_constant_away():
    maps = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[None] + 10
    assert cs.feature_map_similarity(maps) > 0.98
    assert cs.feature_map_similarity(maps, center=True) < 1e-6


@pytest.mark.parametrize("center", [False, True])
def test_one_map_or_zero_maps_are_not_similar(center):
    def similarity(maps):
        return cs.feature_map_similarity(maps, center=center)

    value_and_slope = jax.value_and_grad(similarity)
    for maps in (jnp.zeros((2, 3, 3, 4)), jnp.ones((2, 3, 3, 1))):
        value, slope = value_and_slope(maps)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
    dead = single(1, (2, 3, 3, 4)).at[..., 2].set(0)
    value, slope = value_and_slope(dead)
    expected = oracle.feature_map_similarity(dead, center=center)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("constant", [0.1, -7.7, 123.456])
def test_constant_maps_centred_are_zero(constant):
    """A dead channel's map is its bias everywhere; no rest of its mean may count."""
    maps = jnp.full((2, 7, 9, 2), constant)  # whose mean in float32 is another
    assert cs.feature_map_similarity(maps) > 0.999
    assert cs.feature_map_similarity(maps, center=True) == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("center", [False, True])
def test_gradient_is_that_of_finite_differences(center):
    maps = normal(3, (2, 4, 3))
    result = jax.grad(lambda f: cs.feature_map_similarity(f, center=center))(maps)
    expected = oracle.gradient(
        lambda f: oracle.feature_map_similarity(f, center=center), maps
    )
    np.testing.assert_allclose(result, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_rounds_once(dtype):
    # Squares, and the sum of a map, overflow float16.
    maps = (300 * normal(4, (2, 16, 16, 5)) + 300).astype(dtype)
    for center in (False, True):
        result = cs.feature_map_similarity(jnp.asarray(maps), center=center)
        assert result.dtype == dtype
        expected = oracle.feature_map_similarity(maps, center=center)
        assert oracle.relative_error(result, expected) <= jnp.finfo(dtype).eps


def test_under_jit_and_vmap():
    maps = single(5, (3, 2, 4, 4, 3))
    result = jax.jit(jax.vmap(cs.feature_map_similarity))(maps)
    expected = [oracle.feature_map_similarity(m) for m in maps]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


# What the objective on kernels says about the maps: the reason for the library.


def full_maps(images, kernel):
    """Maps by XLA's convolution, zero padded by the window's size less one."""
    *window, _, _ = kernel.shape
    return jax.lax.conv_general_dilated(
        jnp.moveaxis(images, -1, 1),
        jnp.moveaxis(kernel, (-1, -2), (0, 1)),
        window_strides=(1,) * len(window),
        padding=[(n - 1, n - 1) for n in window],
    )


def cut_to_lags(correlation, window):
    """The lags ``1 - N .. N - 1`` out of all lags of the input."""
    middle = [(size - 1) // 2 for size in correlation.shape]
    return correlation[
        tuple(slice(m - n + 1, m + n) for m, n in zip(middle, window, strict=True))
    ]


@pytest.mark.usefixtures("x64")
@settings(max_examples=15)
@given(st.sampled_from([((3,), (8,)), ((2, 3), (5, 4)), ((2, 1, 2), (3, 2, 4))]), seeds)
def test_inner_product_of_maps_is_one_of_correlations(windows, seed):
    """``<F_i, F_j> = <K_i * K_j, X * X>`` on equal lags, for one input channel."""
    window, size = windows
    kernel, image = normal(seed, (*window, 1, 2)), normal(seed + 1, size)
    maps = full_maps(jnp.asarray(image)[None, ..., None], jnp.asarray(kernel))[0]
    of_kernels = cs.cross_correlate(*jnp.asarray(np.moveaxis(kernel[..., 0, :], -1, 0)))
    of_image = cut_to_lags(signal.correlate(image, image, method="direct"), window)
    np.testing.assert_allclose(
        np.sum(maps[0] * maps[1]), np.sum(of_kernels * of_image), rtol=1e-9, atol=1e-10
    )


@pytest.mark.usefixtures("x64")
@settings(max_examples=15)
@given(st.sampled_from([((3,), (8,)), ((2, 2), (4, 5))]), st.integers(1, 3), seeds)
def test_cross_channel_similarity_bounds_the_maps(windows, inputs, seed):
    """``|<F_i, F_j>| <= |R_X| sqrt(CS_cross(i, j))``, by Cauchy and Schwarz."""
    window, size = windows
    kernel, image = normal(seed, (*window, inputs, 3)), normal(seed + 1, (*size, inputs))
    maps = full_maps(jnp.asarray(image)[None], jnp.asarray(kernel))[0]
    of_maps = np.einsum("ip,jp->ij", *(np.reshape(maps, (3, -1)),) * 2)
    correlations = {
        (c, d): cut_to_lags(
            signal.correlate(image[..., d], image[..., c], method="direct"), window
        )
        for c, d in itertools.product(range(inputs), repeat=2)
    }
    norm = np.sqrt(sum(np.sum(r**2) for r in correlations.values()))
    bound = norm * np.sqrt(cs.similarity_matrix(jnp.asarray(kernel), channels="cross"))
    assert np.all(np.abs(of_maps) <= bound * (1 + 1e-9))


@pytest.mark.usefixtures("x64")
def test_the_bound_is_attained_where_image_and_kernels_agree():
    """A single tap on an image of a single pixel leaves no slack."""
    kernel = jnp.zeros((3, 3, 1, 2)).at[1, 1].set(jnp.array([2.0, -3.0])[None])
    image = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(5.0)
    maps = full_maps(image, kernel)[0]
    inner = jnp.sum(maps[0] * maps[1])
    assert inner == -150
    bound = 25 * jnp.sqrt(cs.similarity_matrix(kernel, channels="cross")[0, 1])
    np.testing.assert_allclose(abs(inner), bound)
