"""Similarity of kernels: closed forms, symmetries, bounds, extreme kernels, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import (
    CASES,
    CHANNELS,
    LARGE,
    OPTIONS,
    SHAPE,
    SHAPES,
    every_option,
    every_scale_free_option,
    gradient,
    layers,
    loss,
    matrix,
    normal,
    seeds,
    single,
    small_and_large,
    value_and_gradient,
)

# Values of any layer, against the definition.


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=40)
@given(st.sampled_from(CASES) | layers(), st.sampled_from(OPTIONS), seeds)
def test_loss_and_matrix_are_their_definitions(case, options, seed):
    shape, groups = case
    kernel = normal(seed, shape)
    for name, static in (
        ("convolutional_similarity", options),
        ("similarity_matrix", {k: v for k, v in options.items() if k != "pairs"}),
    ):
        static = static | {"feature_group_count": groups}
        result = getattr(cs, name)(jnp.asarray(kernel), **static)
        expected = getattr(oracle, name)(kernel, **static)
        assert result.dtype == jnp.float64
        assert result.shape == np.shape(expected)
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (2, 4, 1, 3), (1, 1, 3, 5)])
def test_official_loss_takes_adjacent_pairs(shape):
    kernel = single(7, shape)
    result = cs.convolutional_similarity(kernel, pairs="adjacent")
    np.testing.assert_allclose(result, oracle.adjacent_loss_of_paper(kernel), rtol=1e-5)


def test_two_taps_by_hand():
    # [1, 1] * [2, -2] = [2, 0, -2]; [1, 1] * [1, 1] = [1, 2, 1]; 4 times [-1, 2, -1].
    kernel = jnp.array([[1.0, 2.0], [1.0, -2.0]]).reshape(2, 1, 2)
    np.testing.assert_allclose(cs.similarity_matrix(kernel), [[6, 8], [8, 96]])
    np.testing.assert_allclose(cs.convolutional_similarity(kernel), 8)
    result = cs.convolutional_similarity(kernel, normalize=True)
    np.testing.assert_allclose(result, 8 / 24, rtol=1e-6)


@given(seeds)
def test_one_by_one_kernels_in_closed_form(seed):
    kernel = single(seed, (1, 1, 3, 4))
    squares = np.square(oracle.float64(kernel[0, 0]))
    energies = squares.sum(0)
    close = np.testing.assert_allclose
    close(matrix(kernel), squares.T @ squares, rtol=1e-5)
    expected = np.outer(energies, energies)
    close(matrix(kernel, channels="cross"), expected, rtol=1e-5)
    # Summed over input channels all 1x1 kernels have the one (flat) spectrum.
    close(matrix(kernel, channels="cross", normalize=True), np.ones((4, 4)), rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_two_taps_far_apart_in_a_wide_window(normalize):
    """As the first layer of a ResNet has."""
    kernel = jnp.zeros((7, 7, 1, 2)).at[0, 0, 0].set(1.0).at[6, 6, 0, 1].set(2.0)
    value, slope = value_and_gradient(kernel, normalize=normalize)
    # One tap against [1, 2]: 1 + 4; the own similarities are 1 and 2^2 + 5^2 + 2^2.
    expected = 5 / np.sqrt(33) if normalize else 5
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(slope))


# Symmetries and bounds.


@small_and_large
@every_option
def test_degree_four_or_free_of_scale(shape, options):
    kernel = single(9, shape)
    expected = loss(kernel, **options)
    for t in (0.5, -2.0):
        degree = 0 if options["normalize"] else 4
        result = loss(t * kernel, **options)
        np.testing.assert_allclose(result, t**degree * expected, rtol=1e-6)
    if options["normalize"]:  # of every output channel on its own
        scales = jnp.array([1e-3, -2, 1, 70]).reshape([1] * (len(shape) - 1) + [4])
        result = loss(kernel * scales, **options)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.slow
@given(st.sampled_from(SHAPES[::2]), st.sampled_from(CHANNELS), seeds)
def test_scale_free_entries_lie_between_zero_and_one(shape, channels, seed):
    result = matrix(single(seed, shape), channels=channels, normalize=True)
    assert np.all(result >= 0)
    assert np.all(result <= 1 + 1e-5)
    np.testing.assert_allclose(np.diag(result), 1, rtol=1e-5)
    np.testing.assert_allclose(result, result.T, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("channels", CHANNELS)
def test_scale_free_is_one_for_proportional_power_spectra(channels):
    corner = np.zeros((3, 3, 2, 1))
    corner[:2, :2] = normal(13, (2, 2, 2, 1))
    shifted = np.roll(corner, (1, 1), axis=(0, 1))
    copies = [corner, -5 * corner, corner[::-1, ::-1], shifted]
    kernel = jnp.asarray(np.concatenate(copies, -1), jnp.float32)
    options = {"channels": channels, "normalize": True}
    np.testing.assert_allclose(matrix(kernel, **options), np.ones((4, 4)), rtol=1e-5)
    for pairs in ("all", "adjacent"):
        np.testing.assert_allclose(loss(kernel, pairs=pairs, **options), 1, rtol=1e-5)


def test_kernels_on_different_input_channels_have_no_matched_similarity():
    """Then, and for finite kernels only then, ``CS = 0``: spectra are polynomials."""
    kernel = single(15, (2, 2, 3, 3)) * jnp.eye(3)[None, None]
    for pairs in ("all", "adjacent"):
        # All-pairs is a difference of sums: zero but for rounding.
        assert abs(loss(kernel, pairs=pairs)) <= 1e-6 * jnp.trace(matrix(kernel))
        assert abs(loss(kernel, pairs=pairs, normalize=True)) < 1e-6
    off_diagonal = np.asarray(matrix(kernel))[~np.eye(3, dtype=bool)]
    np.testing.assert_array_equal(off_diagonal, 0)
    assert np.all(matrix(kernel, channels="cross") > 0)


def test_kernels_orthogonal_at_lag_zero_alone_are_still_similar():
    kernel = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 2)
    assert cs.kernel_cosine_similarity(kernel)[0, 1] == 0
    assert cs.convolutional_similarity(kernel) == 1
    assert cs.convolutional_similarity(kernel, normalize=True) == 1


# Extreme and degenerate kernels.


@small_and_large
@every_scale_free_option
@pytest.mark.parametrize("t", [1e-12, 1e-6, 1e6, 1e12])
def test_scale_free_loss_neither_underflows_nor_overflows(shape, options, t):
    kernel = single(11, shape)
    expected = loss(kernel, **options)
    np.testing.assert_allclose(loss(t * kernel, **options), expected, rtol=1e-5)
    result, expected = (gradient(t * kernel, **options), gradient(kernel, **options))
    assert oracle.relative_error(t * result, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("t", [0.0, 1e-12, 1e12])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kernel_cosine_similarity", {}),
        ("similarity_matrix", {"normalize": True}),
        ("similarity_matrix", {"normalize": True, "channels": "cross"}),
    ],
)
def test_scale_free_matrices_neither_underflow_nor_overflow(name, options, t):
    kernel = single(29, (3, 3, 2, 3)).at[..., 1].multiply(t)
    function = partial(getattr(cs, name), **options)
    expected = getattr(oracle, name)(kernel, **options)
    np.testing.assert_allclose(function(kernel), expected, rtol=1e-4, atol=1e-6)
    slope = jax.grad(lambda k: jnp.sum(function(k) ** 2))(kernel)
    assert np.all(np.isfinite(slope))


@every_option
@pytest.mark.parametrize(("outputs", "groups"), [(1, 1), (4, 4)])
def test_without_pairs_loss_and_gradient_are_zero(options, outputs, groups):
    kernel = single(16, (3, 2, outputs))
    value, slope = value_and_gradient(kernel, **options, feature_group_count=groups)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


@small_and_large
@every_option
def test_gradient_stays_finite_down_to_subnormal_kernels(shape, options):
    for size in (1e-42, 1e-38, 1e-30):
        value, slope = value_and_gradient(jnp.full(shape, size, jnp.float32), **options)
        assert np.isfinite(value)
        assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (7, 7)], ids=str)
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
@pytest.mark.parametrize("channels", ["matched", "cross"])
def test_the_scale_free_form_of_norms_as_small_and_large_as_it_takes(
    window, pairs, channels
):
    kernel = np.asarray(single(31, (*window, 3, 4)))
    unit = kernel / np.sqrt(np.sum(np.square(kernel), (0, 1, 2), keepdims=True))
    options = {"pairs": pairs, "channels": channels, "normalize": True}
    expected = loss(unit, **options)
    for norms in ([1e-16] * 4, [1e18] * 4, [1e-16, 1.0, 1e18, 1.0]):
        scaled = unit * np.array(norms, np.float32)
        np.testing.assert_allclose(loss(scaled, **options), expected, rtol=1e-3)


# Precision.


def errors_against_float64(kernel, options):
    """Relative errors of the value, the gradient, and the worst channel's gradient."""

    def exact(k):
        return oracle.convolutional_similarity(k, **options)

    value, slope = value_and_gradient(kernel, **options)
    expected = oracle.gradient(exact, kernel)
    pairs = [(slope[..., m], expected[..., m]) for m in range(kernel.shape[-1])]
    pairs += [(value, exact(kernel)), (slope, expected)]
    return max(oracle.relative_error(*pair) for pair in pairs)


@small_and_large
@every_option
@pytest.mark.parametrize(("large", "tolerance"), [(None, 1e-5), (0, 1e-3), (3, 1e-3)])
def test_single_precision(shape, options, large, tolerance):
    """All pairs are a square of a sum less a sum of squares, large where a kernel is."""
    kernel = single(21, shape)
    if large is not None:
        kernel = kernel.at[..., large].multiply(100)
    assert errors_against_float64(kernel, options) < tolerance


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed_jax")  # optax.adam promotes
@every_option
def test_single_precision_after_a_thousand_steps(options):
    """Kernels that were minimised leave small differences of large sums."""
    params = {"kernel": single(25, (3, 3, 4, 8)) / 6}
    params, history = cs.minimize_similarity(params, 1000, **options)
    assert history.loss[-1] < history.loss[0] / 3
    exact = oracle.convolutional_similarity(params["kernel"], **options)
    assert oracle.relative_error(loss(params["kernel"], **options), exact) < 1e-3


@pytest.mark.slow
@every_option
def test_single_precision_on_a_wide_layer(options):
    kernel = single(23, (2, 2, 8, 24)) / 4
    expected = oracle.convolutional_similarity(kernel, **options)
    np.testing.assert_allclose(loss(kernel, **options), expected, rtol=1e-5)


@pytest.mark.slow
@every_option
def test_half_precision_gradient_rounds_once(options):
    kernel = single(24, LARGE).astype(jnp.float16)
    slope = gradient(kernel, **options)
    assert slope.dtype == jnp.float16
    expected = oracle.gradient(
        lambda k: oracle.convolutional_similarity(k, **options), kernel
    )
    assert oracle.relative_error(slope, expected) <= jnp.finfo(jnp.float16).eps


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


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "some"}, r"pairs is 'some'.*'all' or 'adjacent'"),
        ({"channels": "mixed"}, r"channels is 'mixed'.*'matched' or 'cross'"),
        ({"normalize": "yes"}, r"normalize is 'yes'.*True or False"),
        ({"feature_group_count": 3}, r"feature_group_count is 3.*4 output channels"),
        ({"feature_group_count": 0}, r"feature_group_count is 0.*positive int"),
        ({"feature_group_count": -2}, r"feature_group_count is -2.*positive int"),
        ({"feature_group_count": 2.0}, r"feature_group_count is 2\.0.*positive int"),
        ({"feature_group_count": True}, r"feature_group_count is True.*positive int"),
        ({"strides": 0}, r"strides is 0; expected a positive int, or one for each"),
        ({"strides": True}, r"strides is True; expected a positive int"),
        ({"strides": 1.5}, r"strides is 1.5; expected a positive int"),
        ({"strides": "2"}, r"strides is '2'; expected a positive int"),
        ({"strides": (2,)}, r"strides is \(2,\);.*2 axes of the window \(2, 2\)"),
        ({"strides": (2, -1)}, r"strides is \(2, -1\); expected a positive int"),
        ({"transposed": 1}, r"transposed is 1; expected True or False"),
    ],
    ids=str,
)
def test_says_what_is_wrong_with_an_option(options, message):
    with pytest.raises(ValueError, match=message):
        cs.convolutional_similarity(jnp.ones(SHAPE), **options)
    if "pairs" not in options:
        with pytest.raises(ValueError, match=message):
            cs.similarity_matrix(jnp.ones(SHAPE), **options)
