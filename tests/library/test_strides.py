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


@pytest.mark.slow
@every_option
@pytest.mark.parametrize(("shape", "strides"), [SMALL[1], SPECTRAL[1]], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
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


def strided_maps(kernel, image, stride):
    """One axis, zeros around: the full map, a stride a pixel."""
    window = len(kernel)
    side = -(-window // stride) * stride
    padded = np.pad(image, [(side, side), (0, 0)])
    starts = range(0, len(padded) - window + 1, stride)
    return [
        [np.sum(padded[n : n + window] * kernel[..., m]) for n in starts]
        for m in range(2)
    ]


def transposed_maps(kernel, image, stride):
    spread = np.zeros((len(image) * stride, 2))
    spread[::stride] = image
    return [
        sum(np.convolve(spread[:, c], kernel[:, c, m]) for c in range(2))
        for m in range(2)
    ]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 2), (5, 3), (4, 2), (2, 3)])
def test_maps_of_any_input_keep_within_the_bound(window, stride, transposed):
    kernel = normal(8, (window, 2, 2))
    image = normal(9, (8 if transposed else 12 * stride, 2))
    if transposed:
        maps = transposed_maps(kernel, image, stride)
        # It convolves where the other correlates: lags of the input have the other sign.
        of_image, of_kernel, step = [image[::-1]], [kernel], stride
    else:
        maps = strided_maps(kernel, image, stride)
        of_image, of_kernel = (oracle.phases(x, (stride,)) for x in (image, kernel))
        step = 1
    inner = energy = 0.0
    phases = range(len(of_image))
    for c, d, p, q in itertools.product(range(2), range(2), phases, phases):
        k = oracle.cross_correlate(of_kernel[p][:, c, 0], of_kernel[q][:, d, 1])
        k = k[(len(k) // 2) % step :: step]  # the lags that count
        r = oracle.cross_correlate(of_image[p][:, c], of_image[q][:, d])
        middle, half = len(r) // 2, len(k) // 2
        cut = r[middle - half : middle + half + 1]
        inner, energy = inner + np.sum(k * cut), energy + np.sum(cut * cut)
    np.testing.assert_allclose(np.dot(*maps), inner, rtol=1e-10)
    matrix = cs.similarity_matrix(
        jnp.asarray(kernel), strides=stride, transposed=transposed, channels="cross"
    )
    assert abs(inner) <= np.sqrt(energy * matrix[0, 1])
