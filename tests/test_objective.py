import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convsim_jax as cs
from tests import oracle

# Unequal windows, 1 to 3 spatial axes, 1x1, one input channel, one output channel.
SHAPES = [
    (3, 2, 4),
    (1, 3, 2),
    (1, 1, 3, 4),
    (2, 3, 1, 3),
    (4, 1, 2, 1),
    (2, 2, 2, 4),
    (1, 2, 2, 2, 3),
    (3, 4, 1, 3),
    (2, 2, 3, 2, 3),
]
GROUPED = [((3, 2, 4), 2), ((2, 2, 1, 6), 3), ((11, 3, 6), 2), ((1, 2, 1, 2, 4), 4)]
CASES = [(shape, 1) for shape in SHAPES] + GROUPED
SHAPE = (2, 2, 2, 4)  # where the shape does not matter: it compiles once an option
LARGE = (11, 2, 4)  # windows of more than 9 taps run on the power spectrum
OPTIONS = [
    {"pairs": pairs, "channels": channels, "normalize": normalize}
    for pairs, channels, normalize in itertools.product(
        ["all", "adjacent"], ["matched", "cross"], [False, True]
    )
]
SCALE_FREE = [options for options in OPTIONS if options["normalize"]]
CHANNELS = ["matched", "cross"]

STATIC = ("pairs", "channels", "normalize", "feature_group_count")
value_and_gradient = jax.jit(
    jax.value_and_grad(cs.convolutional_similarity), static_argnames=STATIC
)
matrix = jax.jit(cs.similarity_matrix, static_argnames=STATIC[1:])

seeds = st.integers(0, 2**32 - 1)
every_option = pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: "-".join(map(str, options.values()))
)
small_and_large = pytest.mark.parametrize("shape", [SHAPE, LARGE])
every_scale_free_option = pytest.mark.parametrize(
    "options", SCALE_FREE, ids=lambda options: "-".join(map(str, options.values()))
)


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def single(seed, shape):
    return jnp.asarray(normal(seed, shape), jnp.float32)


def loss(kernel, **options):
    return value_and_gradient(kernel, **options)[0]


def gradient(kernel, **options):
    return value_and_gradient(kernel, **options)[1]


# Values, against the definition.


@pytest.mark.usefixtures("x64")
@settings(max_examples=40)
@given(st.sampled_from(CASES), st.sampled_from(OPTIONS), seeds)
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
@given(st.sampled_from(CASES), st.sampled_from(CHANNELS), st.booleans(), seeds)
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


# Kernel cosine similarity.


@pytest.mark.usefixtures("x64")
@given(st.sampled_from(SHAPES), seeds)
def test_kernel_cosine_is_its_definition(shape, seed):
    kernel = normal(seed, shape)
    result = cs.kernel_cosine_similarity(jnp.asarray(kernel))
    expected = oracle.kernel_cosine_similarity(kernel)
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-13)


def test_kernel_cosine_is_signed_and_scale_free():
    filters = normal(28, (3, 3, 2, 1))
    kernel = np.concatenate([filters, -3 * filters, filters[::-1]], -1)
    result = cs.kernel_cosine_similarity(jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(np.diag(result), 1, rtol=1e-6)
    np.testing.assert_allclose(result[0, 1], -1, rtol=1e-6)
    assert abs(result[0, 2]) < 0.9


@pytest.mark.parametrize("t", [0.0, 1e-12, 1e12])
def test_kernel_cosine_and_its_gradient_at_extreme_scales(t):
    kernel = single(29, (3, 3, 2, 3)).at[..., 1].multiply(t)
    result = cs.kernel_cosine_similarity(kernel)
    expected = oracle.kernel_cosine_similarity(kernel)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    slope = jax.grad(lambda k: jnp.sum(cs.kernel_cosine_similarity(k) ** 2))(kernel)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_kernel_cosine_in_half_precision(dtype):
    kernel = (300 * single(30, (3, 3, 8, 3))).astype(dtype)  # squares overflow float16
    result = cs.kernel_cosine_similarity(kernel)
    assert result.dtype == dtype
    np.testing.assert_allclose(
        oracle.float64(result),
        oracle.kernel_cosine_similarity(kernel),
        rtol=float(jnp.finfo(dtype).eps),
    )


# Errors: the argument, what came, what was expected.

NOT_KERNELS = [
    (jnp.ones((3, 4)), r"kernel.*\(3, 4\).*rank 2.*3, 4 or 5"),
    (jnp.ones((1,) * 6), r"kernel.*rank 6.*3, 4 or 5"),
    (jnp.ones((3, 2, 4), int), r"kernel.*int32.*floating"),
    (jnp.ones((3, 2, 4), bool), r"kernel.*bool.*floating"),
    (jnp.ones((3, 2, 4), jnp.complex64), r"kernel.*complex64.*floating"),
]


@pytest.mark.parametrize("function", ["convolutional_similarity", "similarity_matrix"])
@pytest.mark.parametrize(("kernel", "message"), NOT_KERNELS)
def test_rejects_what_is_no_kernel(function, kernel, message):
    with pytest.raises(ValueError, match=message):
        getattr(cs, function)(kernel)


@pytest.mark.parametrize(("kernel", "message"), NOT_KERNELS)
def test_kernel_cosine_rejects_what_is_no_kernel(kernel, message):
    with pytest.raises(ValueError, match=message):
        cs.kernel_cosine_similarity(kernel)


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
    ],
)
def test_rejects_unknown_options(options, message):
    kernel = jnp.ones((3, 2, 4))
    with pytest.raises(ValueError, match=message):
        cs.convolutional_similarity(kernel, **options)
    if "pairs" not in options:
        with pytest.raises(ValueError, match=message):
            cs.similarity_matrix(kernel, **options)
