"""Similarity of kernels in numbers: extreme kernels, gradients and precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import (
    CHANNELS,
    LARGE,
    SHAPE,
    every_option,
    every_scale_free_option,
    gradient,
    loss,
    matrix,
    normal,
    single,
    small_and_large,
    value_and_gradient,
)

# Extreme scales.


@small_and_large
@every_scale_free_option
@pytest.mark.parametrize("t", [1e-12, 1e-6, 1e6, 1e12])
def test_scale_free_loss_neither_underflows_nor_overflows(shape, options, t):
    kernel = single(11, shape)
    np.testing.assert_allclose(
        loss(t * kernel, **options), loss(kernel, **options), rtol=1e-5
    )
    result = t * gradient(t * kernel, **options)
    expected = gradient(kernel, **options)
    assert oracle.relative_error(result, expected) < 1e-4


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("t", [1e-12, 1e12])
def test_scale_free_matrix_neither_underflows_nor_overflows(channels, t):
    kernel = single(11, SHAPE)
    np.testing.assert_allclose(
        matrix(t * kernel, channels=channels, normalize=True),
        matrix(kernel, channels=channels, normalize=True),
        rtol=1e-5,
    )


# Degenerate kernels.


@every_option
@pytest.mark.parametrize(("outputs", "groups"), [(1, 1), (4, 4)])
def test_without_pairs_loss_and_gradient_are_zero(options, outputs, groups):
    kernel = single(16, (3, 2, outputs))
    assert loss(kernel, **options, feature_group_count=groups) == 0
    np.testing.assert_array_equal(
        gradient(kernel, **options, feature_group_count=groups), 0
    )


@small_and_large
@every_option
def test_zero_kernels_have_zero_loss_and_gradient(shape, options):
    kernel = jnp.zeros(shape)
    assert loss(kernel, **options) == 0
    np.testing.assert_array_equal(gradient(kernel, **options), 0)


@pytest.mark.usefixtures("x64")
@every_option
@pytest.mark.parametrize("zero", [0, 2])
def test_one_zero_kernel_among_others(options, zero):
    kernel = normal(17, SHAPE)
    kernel[..., zero] = 0
    expected = oracle.convolutional_similarity(kernel, **options)
    np.testing.assert_allclose(loss(kernel, **options), expected, rtol=1e-10)
    others = [m for m in range(4) if m != zero]

    def of_others(x):
        whole = np.zeros_like(kernel)
        whole[..., others] = x
        return oracle.convolutional_similarity(whole, **options)

    result = gradient(jnp.asarray(kernel), **options)
    np.testing.assert_array_equal(result[..., zero], 0)
    np.testing.assert_allclose(
        result[..., np.array(others)],
        oracle.gradient(of_others, kernel[..., others]),
        rtol=1e-7,
        atol=1e-9,
    )


@pytest.mark.parametrize("channels", CHANNELS)
def test_matrix_of_a_zero_kernel_is_zero_in_its_row_and_column(channels):
    kernel = single(18, SHAPE).at[..., 1].set(0)
    for normalize in (False, True):
        result = matrix(kernel, channels=channels, normalize=normalize)
        np.testing.assert_array_equal(result[1], 0)
        np.testing.assert_array_equal(result[:, 1], 0)
        assert result[0, 2] > 0


@small_and_large
@every_option
@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-30])
def test_gradient_stays_finite_down_to_subnormal_kernels(shape, options, size):
    kernel = jnp.full(shape, size, jnp.float32)
    assert np.isfinite(loss(kernel, **options))
    assert np.all(np.isfinite(gradient(kernel, **options)))


# Gradients and precision.


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@every_option
@pytest.mark.parametrize(("shape", "groups"), [(SHAPE, 1), (LARGE, 1), ((3, 2, 6), 2)])
def test_gradient_is_that_of_finite_differences(options, shape, groups):
    options = options | {"feature_group_count": groups}
    kernel = normal(19, shape)
    expected = oracle.gradient(
        lambda k: oracle.convolutional_similarity(k, **options), kernel
    )
    result = gradient(jnp.asarray(kernel), **options)
    np.testing.assert_allclose(result, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("normalize", [False, True])
def test_gradient_of_each_matrix_entry(channels, normalize):
    options = {"channels": channels, "normalize": normalize}
    kernel = normal(20, (3, 2, 3))
    result = jax.jit(jax.jacrev(lambda k: cs.similarity_matrix(k, **options)))(kernel)
    for i, j in [(0, 0), (0, 1), (2, 1)]:
        expected = oracle.gradient(
            lambda k, i=i, j=j: oracle.similarity_matrix(k, **options)[i, j], kernel
        )
        np.testing.assert_allclose(result[i, j], expected, rtol=1e-7, atol=1e-8)


def errors_against_float64(kernel, options):
    """Relative errors of the value, the gradient, and the worst channel's gradient."""

    def exact(k):
        return oracle.convolutional_similarity(k, **options)

    expected = oracle.gradient(exact, kernel)
    result = np.asarray(gradient(kernel, **options))
    by_channel = max(
        oracle.relative_error(result[..., m], expected[..., m])
        for m in range(kernel.shape[-1])
    )
    return (
        oracle.relative_error(loss(kernel, **options), exact(kernel)),
        oracle.relative_error(result, expected),
        by_channel,
    )


@small_and_large
@every_option
def test_single_precision_on_random_kernels(shape, options):
    errors = errors_against_float64(single(21, shape), options)
    assert max(errors) < 1e-5


@small_and_large
@every_option
@pytest.mark.parametrize("large", [0, 3])
def test_single_precision_where_one_kernel_dominates(shape, options, large):
    """All pairs are a square of a sum less a sum of squares: here both are large."""
    kernel = single(22, shape).at[..., large].multiply(100)
    assert max(errors_against_float64(kernel, options)) < 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed_jax")  # optax.adam promotes
@every_option
def test_single_precision_after_a_thousand_steps(options):
    """Kernels that were minimised leave small differences of large sums."""
    params = {"kernel": single(25, (3, 3, 4, 8)) / 6}
    params, history = cs.minimize_similarity(params, 1000, **options)
    assert history.loss[-1] < history.loss[0] / 3
    kernel = params["kernel"]
    exact = oracle.convolutional_similarity(kernel, **options)
    assert oracle.relative_error(loss(kernel, **options), exact) < 1e-3


@pytest.mark.slow
@every_option
def test_single_precision_on_a_wide_layer(options):
    kernel = single(23, (2, 2, 8, 24)) / 4
    expected = oracle.convolutional_similarity(kernel, **options)
    result = cs.convolutional_similarity(kernel, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@every_option
def test_half_precision_rounds_once(options):
    kernel = single(24, LARGE).astype(jnp.float16)

    def exact(k):
        return oracle.convolutional_similarity(k, **options)

    value, slope = value_and_gradient(kernel, **options)
    assert value.dtype == slope.dtype == jnp.float16
    eps = float(jnp.finfo(jnp.float16).eps)
    assert oracle.relative_error(value, exact(kernel)) <= eps
    assert oracle.relative_error(slope, oracle.gradient(exact, kernel)) <= eps


@every_option
def test_half_precision_overflows_only_where_the_result_does(options):
    """Own similarity of the first kernel: 9e4; its sums with the others: small."""
    kernel = single(26, SHAPE).at[..., 1:].divide(16)
    first = kernel[..., 0]
    kernel = kernel.at[..., 0].set(first * (17.4 / jnp.linalg.norm(first)))
    kernel = kernel.astype(jnp.float16)
    assert oracle.similarity(oracle.float64(kernel), 0, 0) > 65504
    result = loss(kernel, **options)
    exact = oracle.convolutional_similarity(kernel, **options)
    assert oracle.relative_error(result, exact) <= jnp.finfo(jnp.float16).eps


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("normalize", [False, True])
def test_matrix_keeps_the_dtype(dtype, normalize):
    kernel = (single(27, (3, 3, 4, 5)) / 2).astype(dtype)
    result = matrix(kernel, normalize=normalize)
    assert result.dtype == dtype
    np.testing.assert_allclose(
        oracle.float64(result),
        oracle.similarity_matrix(kernel, normalize=normalize),
        rtol=max(float(jnp.finfo(dtype).eps), 1e-5),
    )
