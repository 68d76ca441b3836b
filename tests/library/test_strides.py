"""Strided and transposed convolutions: against phases written out, and real maps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from convsim_jax import _blocks
from tests.library import oracle
from tests.library.kernel_cases import CHANNELS, SHAPE, every_option, normal

pytestmark = pytest.mark.usefixtures("x64")

# Small windows are written out, those of many products of taps take their spectrum.
SMALL = [((3, 2, 3), (2,)), ((3, 3, 2, 3), (2, 1)), ((2, 2, 1, 1, 3), (2, 1, 1))]
SPECTRAL = [((11, 1, 3), (3,)), ((5, 4, 2, 3), (2, 3))]
BEYOND = [((3, 2, 2, 3), (4, 2))]  # strides of the window or more: lag zero is left
every_geometry = pytest.mark.parametrize(
    ("shape", "strides", "transposed"),
    [(*case, t) for case in SMALL + SPECTRAL + BEYOND for t in (False, True)],
    ids=str,
)


@every_geometry
@pytest.mark.parametrize("channels", CHANNELS)
def test_matrix_is_that_of_the_phases(shape, strides, transposed, channels):
    geometry = {"strides": strides, "transposed": transposed, "channels": channels}
    kernel = normal(0, shape)
    expected = oracle.similarity_matrix(kernel, **geometry)
    result = cs.similarity_matrix(jnp.asarray(kernel), **geometry)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


@every_geometry
@every_option
def test_value_and_gradient(shape, strides, transposed, options):
    options = options | {"strides": strides, "transposed": transposed}
    kernel, direction = normal(1, shape), normal(2, shape)

    def exact(kernel):
        return oracle.convolutional_similarity(kernel, **options)

    value, gradient = jax.value_and_grad(cs.convolutional_similarity)(
        jnp.asarray(kernel), **options
    )
    np.testing.assert_allclose(value, exact(kernel), rtol=1e-10)
    expected = oracle.slope(exact, kernel, direction)
    np.testing.assert_allclose(np.sum(gradient * direction), expected, 1e-7, 1e-10)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_groups_and_blocks(transposed, normalize, monkeypatch):
    monkeypatch.setattr(_blocks, "SMALL", 0)  # 4 blocks of an input channel
    options = {
        "strides": (2, 2),
        "transposed": transposed,
        "normalize": normalize,
        "feature_group_count": 2,
    }
    kernel = normal(3, (5, 3, 4, 6))
    result = cs.convolutional_similarity(jnp.asarray(kernel), **options)
    expected = oracle.convolutional_similarity(kernel, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


@pytest.mark.parametrize("transposed", [False, True])
def test_strides_of_one_change_nothing(transposed):
    kernel = jnp.asarray(normal(4, SHAPE))
    result = cs.similarity_matrix(kernel, strides=1, transposed=transposed)
    np.testing.assert_array_equal(result, cs.similarity_matrix(kernel))


@pytest.mark.parametrize("strides", [np.int64(2), [2, 2], (np.int32(2), 2)], ids=str)
def test_one_stride_is_that_of_every_axis(strides):
    kernel = jnp.asarray(normal(5, SHAPE))
    result = cs.convolutional_similarity(kernel, strides=strides)
    assert result == cs.convolutional_similarity(kernel, strides=2)


def test_a_stride_of_the_window_leaves_products_of_norms():
    kernel = normal(6, (16, 2, 4))
    square = np.square(kernel).sum((0, 1))
    result = cs.similarity_matrix(jnp.asarray(kernel), strides=16, channels="cross")
    np.testing.assert_allclose(result, np.outer(square, square), rtol=1e-10)


def test_one_tap_across_channels_is_always_alike_and_has_no_gradient():
    def loss(kernel):
        return cs.convolutional_similarity(kernel, channels="cross", normalize=True)

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(normal(7, (1, 1, 3, 4))))
    np.testing.assert_allclose(value, 1, rtol=1e-12)
    np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=1e-12)


# What it is for: inner products of the maps of any input.


def sums_with_the_input(kernel, i, j, correlation_of, parts_of_image):
    """Inner product of two maps, and the energy of what it sees of the input."""
    inner, energy = 0.0, 0.0
    inputs = range(kernel.shape[-2])
    several = itertools.product(
        inputs, inputs, range(len(parts_of_image)), range(len(parts_of_image))
    )
    for c, d, p, q in several:
        r = oracle.cross_correlate(parts_of_image[p][:, c], parts_of_image[q][:, d])
        k = correlation_of(c, d, p, q, i, j)
        middle, half = len(r) // 2, len(k) // 2
        cut = r[middle - half : middle + half + 1]
        inner, energy = inner + np.sum(k * cut), energy + np.sum(cut * cut)
    return inner, energy


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 2), (5, 3), (2, 3)])
def test_strided_maps_of_any_input_keep_within_the_bound(window, stride):
    kernel, image = normal(8, (window, 2, 2)), normal(9, (12 * stride, 2))
    side = -(-window // stride) * stride  # zeros around: the full map, a stride a pixel
    padded = np.pad(image, [(side, side), (0, 0)])
    maps = [
        [
            np.sum(padded[n : n + window] * kernel[..., m])
            for n in range(0, len(padded) - window + 1, stride)
        ]
        for m in range(2)
    ]
    of_kernel = oracle.phases(kernel, (stride,))

    def correlation(c, d, p, q, i, j):
        return oracle.cross_correlate(of_kernel[p][:, c, i], of_kernel[q][:, d, j])

    of_image = oracle.phases(image, (stride,))
    inner, energy = sums_with_the_input(kernel, 0, 1, correlation, of_image)
    np.testing.assert_allclose(np.dot(*maps), inner, rtol=1e-10)
    matrix = cs.similarity_matrix(jnp.asarray(kernel), strides=stride, channels="cross")
    assert abs(inner) <= np.sqrt(energy * matrix[0, 1])


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 2), (4, 2), (2, 3)])
def test_transposed_maps_of_any_input_keep_within_the_bound(window, stride):
    kernel, image = normal(10, (window, 2, 2)), normal(11, (8, 2))
    spread = np.zeros((len(image) * stride, 2))
    spread[::stride] = image
    maps = [
        sum(np.convolve(spread[:, c], kernel[:, c, m]) for c in range(2))
        for m in range(2)
    ]

    def correlation(c, d, p, q, i, j):
        lags = oracle.cross_correlate(kernel[:, c, i], kernel[:, d, j])
        return lags[(window - 1) % stride :: stride]

    # It convolves where the other correlates: lags of the input have the other sign.
    reversed_image = [image[::-1]]
    inner, energy = sums_with_the_input(kernel, 0, 1, correlation, reversed_image)
    np.testing.assert_allclose(np.dot(*maps), inner, rtol=1e-10)
    matrix = cs.similarity_matrix(
        jnp.asarray(kernel), strides=stride, transposed=True, channels="cross"
    )
    assert abs(inner) <= np.sqrt(energy * matrix[0, 1])


@pytest.mark.parametrize("function", [cs.convolutional_similarity, cs.similarity_matrix])
@pytest.mark.parametrize(
    ("options", "message"),
    [
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
def test_says_what_is_wrong(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.ones(SHAPE), **options)
