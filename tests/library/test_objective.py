"""Similarity of kernels: its value against the definition, its symmetries, errors."""

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
    NOT_KERNELS,
    OPTIONS,
    SHAPE,
    SHAPES,
    every_option,
    every_scale_free_option,
    layers,
    loss,
    matrix,
    normal,
    seeds,
    single,
    small_and_large,
)

# Values, against the definition.


@pytest.mark.usefixtures("x64")
@settings(max_examples=40)
@given(st.sampled_from(CASES) | layers(), st.sampled_from(OPTIONS), seeds)
def test_loss_is_its_definition(case, options, seed):
    shape, groups = case
    kernel = normal(seed, shape)
    result = cs.convolutional_similarity(
        jnp.asarray(kernel), **options, feature_group_count=groups
    )
    expected = oracle.convolutional_similarity(
        kernel, **options, feature_group_count=groups
    )
    assert result.shape == ()
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("x64")
@settings(max_examples=40)
@given(st.sampled_from(CASES) | layers(), st.sampled_from(CHANNELS), st.booleans(), seeds)
def test_matrix_is_its_definition(case, channels, normalize, seed):
    shape, groups = case
    kernel = normal(seed, shape)
    options = {"channels": channels, "normalize": normalize}
    result = matrix(jnp.asarray(kernel), **options, feature_group_count=groups)
    expected = oracle.similarity_matrix(kernel, **options, feature_group_count=groups)
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (2, 4, 1, 3), (1, 1, 3, 5)])
def test_official_loss_takes_adjacent_pairs(shape):
    kernel = single(7, shape)
    np.testing.assert_allclose(
        cs.convolutional_similarity(kernel, pairs="adjacent"),
        oracle.adjacent_loss_of_paper(kernel),
        rtol=1e-5,
    )


def test_defaults_are_the_papers_similarity_over_all_pairs():
    kernel = single(8, SHAPE)
    assert cs.convolutional_similarity(kernel) == cs.convolutional_similarity(
        kernel,
        pairs="all",
        channels="matched",
        normalize=False,
        feature_group_count=1,
    )
    np.testing.assert_array_equal(
        cs.similarity_matrix(kernel),
        cs.similarity_matrix(
            kernel, channels="matched", normalize=False, feature_group_count=1
        ),
    )


def test_two_taps_by_hand():
    # [1, 1] * [2, -2] = [2, 0, -2]; [1, 1] * [1, 1] = [1, 2, 1]; 4 times [-1, 2, -1].
    kernel = jnp.array([[1.0, 2.0], [1.0, -2.0]]).reshape(2, 1, 2)
    np.testing.assert_allclose(cs.similarity_matrix(kernel), [[6, 8], [8, 96]])
    np.testing.assert_allclose(cs.convolutional_similarity(kernel), 8)
    np.testing.assert_allclose(
        cs.convolutional_similarity(kernel, normalize=True), 8 / 24, rtol=1e-6
    )


@given(seeds)
def test_one_by_one_kernels_in_closed_form(seed):
    kernel = single(seed, (1, 1, 3, 4))
    squares = np.square(oracle.float64(kernel[0, 0]))
    np.testing.assert_allclose(matrix(kernel), squares.T @ squares, rtol=1e-5)
    energies = squares.sum(0)
    np.testing.assert_allclose(
        matrix(kernel, channels="cross"), np.outer(energies, energies), rtol=1e-5
    )
    # Summed over input channels all 1x1 kernels have the one (flat) spectrum.
    np.testing.assert_allclose(
        matrix(kernel, channels="cross", normalize=True), np.ones((4, 4)), rtol=1e-5
    )


# Symmetries and bounds.


@small_and_large
@every_option
@pytest.mark.parametrize("t", [0.5, -2.0, 4.0])
def test_loss_is_of_degree_four_or_zero(shape, options, t):
    kernel = single(9, shape)
    degree = 0 if options["normalize"] else 4
    # A power of two scales every intermediate value exactly.
    expected = t**degree * loss(kernel, **options)
    np.testing.assert_allclose(loss(t * kernel, **options), expected, rtol=1e-6)


@small_and_large
@every_scale_free_option
def test_scale_free_loss_ignores_the_scale(shape, options):
    kernel = single(10, shape)
    scales = jnp.array([1e-3, -2.0, 1.0, 70.0])
    expected = loss(kernel, **options)
    result = loss(kernel * scales.reshape((1,) * (len(shape) - 1) + (4,)), **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("normalize", [False, True])
@given(st.permutations(range(4)), seeds)
@settings(max_examples=8)
def test_all_pairs_ignore_the_order_of_output_channels(channels, normalize, order, seed):
    kernel = single(seed, SHAPE)
    options = {"channels": channels, "normalize": normalize}
    result = loss(kernel[..., np.array(order)], **options)
    np.testing.assert_allclose(result, loss(kernel, **options), rtol=1e-5)


def test_adjacent_pairs_see_the_order_of_output_channels():
    kernel = single(12, SHAPE)
    swapped = kernel[..., np.array([2, 1, 0, 3])]
    first, second = (loss(k, pairs="adjacent") for k in (kernel, swapped))
    assert abs(first - second) > 0.01 * first


@given(st.sampled_from(SHAPES[::2]), st.sampled_from(CHANNELS), seeds)
def test_scale_free_entries_lie_between_zero_and_one(shape, channels, seed):
    result = matrix(single(seed, shape), channels=channels, normalize=True)
    assert np.all(result >= 0)
    assert np.all(result <= 1 + 1e-5)
    np.testing.assert_allclose(np.diag(result), 1, rtol=1e-5)
    np.testing.assert_allclose(result, result.T, rtol=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
def test_scale_free_is_one_for_proportional_power_spectra(channels):
    corner = np.zeros((3, 3, 2, 1))
    corner[:2, :2] = normal(13, (2, 2, 2, 1))
    copies = [
        corner,
        -5 * corner,
        corner[::-1, ::-1],
        np.roll(corner, (1, 1), axis=(0, 1)),
    ]
    kernel = jnp.asarray(np.concatenate(copies, -1), jnp.float32)
    result = matrix(kernel, channels=channels, normalize=True)
    np.testing.assert_allclose(result, np.ones((4, 4)), rtol=1e-5)
    for pairs in ("all", "adjacent"):
        result = cs.convolutional_similarity(
            kernel, pairs=pairs, channels=channels, normalize=True
        )
        np.testing.assert_allclose(result, 1, rtol=1e-5)


def test_only_cross_channels_ignore_the_order_of_input_channels():
    filters = normal(14, (3, 3, 2, 1))
    kernel = jnp.asarray(np.concatenate([filters, filters[:, :, ::-1]], -1), jnp.float32)
    cross = matrix(kernel, channels="cross", normalize=True)
    np.testing.assert_allclose(cross, np.ones((2, 2)), rtol=1e-5)
    assert matrix(kernel, normalize=True)[0, 1] < 0.9


def test_kernels_on_different_input_channels_have_no_matched_similarity():
    """Then, and for finite kernels only then, ``CS = 0``: spectra are polynomials."""
    kernel = single(15, (2, 2, 3, 3)) * jnp.eye(3)[None, None]
    for pairs in ("all", "adjacent"):
        # All-pairs is a difference of sums: zero but for rounding.
        similarity = cs.convolutional_similarity(kernel, pairs=pairs)
        assert abs(similarity) <= 1e-6 * jnp.trace(matrix(kernel))
        scale_free = cs.convolutional_similarity(kernel, pairs=pairs, normalize=True)
        assert abs(scale_free) < 1e-6
    off_diagonal = np.asarray(matrix(kernel))[~np.eye(3, dtype=bool)]
    np.testing.assert_array_equal(off_diagonal, 0)
    cross = np.asarray(matrix(kernel, channels="cross"))
    assert np.all(cross > 0)


def test_kernels_orthogonal_at_lag_zero_alone_are_still_similar():
    kernel = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 2)
    assert cs.kernel_cosine_similarity(kernel)[0, 1] == 0
    assert cs.convolutional_similarity(kernel) == 1
    assert cs.convolutional_similarity(kernel, normalize=True) == 1


# Errors: the argument, what came, what was expected.


@pytest.mark.parametrize("function", ["convolutional_similarity", "similarity_matrix"])
@pytest.mark.parametrize(("kernel", "message"), NOT_KERNELS)
def test_rejects_what_is_no_kernel(function, kernel, message):
    with pytest.raises(ValueError, match=message):
        getattr(cs, function)(kernel)


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
    ],
)
def test_rejects_unknown_options(options, message):
    kernel = jnp.ones((3, 2, 4))
    with pytest.raises(ValueError, match=message):
        cs.convolutional_similarity(kernel, **options)
    if "pairs" not in options:
        with pytest.raises(ValueError, match=message):
            cs.similarity_matrix(kernel, **options)
