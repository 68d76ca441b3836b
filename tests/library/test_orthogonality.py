"""Penalties of orthogonality: closed forms, strides, power iteration, errors.

What is asked of every function of a kernel is in test_kernel_functions.py.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsim_jax import orthogonality
from tests.library import oracle
from tests.library.kernel_cases import PENALTIES, every, seeds

# Unequal windows, 1 to 3 spatial axes, undercomplete, overcomplete, M = 1.
SHAPES = [
    (3, 2, 4),
    (1, 2, 5),
    (3, 3, 2, 4),
    (2, 4, 1, 3),
    (1, 1, 3, 4),
    (5, 2, 2, 1),
    (2, 2, 3, 1, 4),
]
srip = jax.jit(orthogonality.spectral_restricted_isometry, static_argnames="iterations")
every_penalty = every(PENALTIES)


def normal(seed, shape):
    # Of the order of an orthonormal kernel, so that the identity matters.
    rows = np.prod(shape[:-1])
    return np.random.default_rng(seed).standard_normal(shape) / np.sqrt(rows)


def orthonormal(seed, shape):
    """Orthonormal columns, or rows where there are fewer of those."""
    *window, C, M = shape
    rows = int(np.prod(window)) * C
    square = np.random.default_rng(seed).standard_normal((max(rows, M),) * 2)
    return np.linalg.qr(square)[0][:rows, :M].reshape(shape)


def convolution_matrix(kernel, strides):
    """The strided convolution as a matrix, on the least torus without wrapped lags."""
    *window, C, M = kernel.shape
    steps = [-(-(2 * k - 1) // s) for k, s in zip(window, strides, strict=True)]
    sides = [t * s for t, s in zip(steps, strides, strict=True)]
    rows = []
    for i, position in itertools.product(range(M), np.ndindex(*steps)):
        row = np.zeros((*sides, C))
        for tap in np.ndindex(*window):
            pixel = tuple((p * s + n) % side for p, s, n, side in zip(
                position, strides, tap, sides, strict=True))  # fmt: skip
            row[pixel] += kernel[(*tap, slice(None), i)]
        rows.append(row.ravel())
    return np.array(rows), np.prod(steps)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=15)
@given(seed=seeds, case=st.sampled_from([
    ((5, 2, 3), 2), ((5, 2, 3), 4), ((3, 3, 2, 3), 2), ((4, 3, 1, 2), (3, 1)),
    ((2, 5, 1, 3), (1, 2)), ((3, 2, 3, 1, 2), (2, 1, 3)), ((1, 1, 2, 4), 2),
]))  # fmt: skip
def test_convolutional_orthogonality_with_a_stride(seed, case):
    shape, stride = case
    kernel = normal(seed, shape)
    result = orthogonality.convolutional_orthogonality(jnp.asarray(kernel), stride=stride)
    np.testing.assert_allclose(
        result, oracle.convolutional_orthogonality(kernel, stride), rtol=1e-11
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((4, 2, 3), (1,)),
        ((4, 2, 3), (3,)),
        ((3, 2, 2, 3), (2, 1)),
        ((2, 2, 1, 5), (1, 1)),
    ],
)
def test_convolutional_orthogonality_is_that_of_the_convolutions_rows(shape, strides):
    kernel = normal(2, shape)
    matrix, positions = convolution_matrix(kernel, strides)
    error = np.linalg.norm(matrix @ matrix.T - np.eye(len(matrix))) ** 2
    result = orthogonality.convolutional_orthogonality(
        jnp.asarray(kernel), stride=strides
    )
    np.testing.assert_allclose(result, error / positions, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=10)
@given(shape=st.sampled_from(SHAPES), seed=seeds)
def test_srip_grows_to_the_spectral_norm(shape, seed):
    kernel = normal(seed, shape)
    spectral_norm = np.linalg.norm(oracle.gram_error(kernel), 2)
    few, more, many = (srip(jnp.asarray(kernel), iterations=n) for n in (1, 5, 1000))
    assert few <= more * (1 + 1e-12)
    assert more <= spectral_norm * (1 + 1e-12)
    # However close the second eigenvalue, what is left falls as log(M) / iterations.
    np.testing.assert_allclose(many, spectral_norm, rtol=2e-3)


@pytest.mark.usefixtures("x64")
def test_srip_starts_from_the_key():
    kernel, key = normal(3, (3, 3, 2, 4)), jax.random.key(7)
    start = oracle.float64(jax.random.normal(key, (4,), jnp.float32))
    result = orthogonality.spectral_restricted_isometry(
        jnp.asarray(kernel), iterations=3, key=key
    )
    np.testing.assert_allclose(
        result, oracle.spectral_restricted_isometry(kernel, start, 3), rtol=1e-11
    )
    assert result != orthogonality.spectral_restricted_isometry(
        jnp.asarray(kernel), iterations=3
    )


# Closed forms.


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=10)
@given(st.sampled_from(SHAPES), seeds)
def test_orthonormal_kernels(shape, seed):
    kernel = jnp.asarray(orthonormal(seed, shape))
    rows, M = kernel.size // shape[-1], shape[-1]
    excess = max(0, M - rows)
    close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    close(orthogonality.soft_orthogonality(kernel), excess)
    close(orthogonality.double_soft_orthogonality(kernel), abs(rows - M))
    if not excess:
        close(orthogonality.mutual_coherence(kernel), 0)
        close(srip(kernel), 0)


@settings(max_examples=10)
@given(st.sampled_from([shape for shape in SHAPES if shape[-2] >= shape[-1]]), seeds)
def test_orthonormal_in_one_tap_is_convolutionally_orthogonal(shape, seed):
    *window, C, M = shape
    kernel = np.zeros(shape)
    tap = tuple(np.random.default_rng(seed).integers(window))
    kernel[tap] = orthonormal(seed, (C, M))
    result = orthogonality.convolutional_orthogonality(jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(result, 0, atol=1e-10)


def test_kernel_orthogonality_does_not_make_a_convolution_orthogonal():
    # [1, 1] and [1, -1], over the square root of 2: orthonormal, but not when shifted.
    kernel = jnp.array([[1.0, 1.0], [1.0, -1.0]]).reshape(2, 1, 2) / jnp.sqrt(2.0)
    np.testing.assert_allclose(orthogonality.soft_orthogonality(kernel), 0, atol=1e-12)
    # Lags 1 and -1: four products of 1/2 or -1/2 each.
    np.testing.assert_allclose(
        orthogonality.convolutional_orthogonality(kernel), 2, rtol=1e-6
    )
    np.testing.assert_allclose(
        orthogonality.convolutional_orthogonality(kernel, stride=2), 0, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(1, 2, 5), (5, 2, 2, 1), (2, 2, 3, 1, 4)], ids=str)
def test_stride_of_the_window_leaves_soft_orthogonality(shape):
    kernel = jnp.asarray(normal(4, shape), jnp.float32)
    np.testing.assert_allclose(
        orthogonality.convolutional_orthogonality(kernel, stride=shape[:-2]),
        orthogonality.soft_orthogonality(kernel),
        rtol=1e-6,
    )


@every_penalty
def test_gradient_vanishes_at_a_kernel_that_is_exactly_orthonormal(case):
    kernel = jnp.ones((1, 1, 1, 1))
    value, gradient = jax.value_and_grad(case.function)(kernel)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(kernel.shape))


# Bad input.


@pytest.mark.parametrize("iterations", [0, -1, 2.0, True])
def test_wrong_iterations(iterations):
    with pytest.raises(
        ValueError, match=f"iterations is {iterations}; expected a positive int"
    ):
        orthogonality.spectral_restricted_isometry(
            jnp.ones((3, 3, 2, 4)), iterations=iterations
        )


@pytest.mark.parametrize("stride", [0, True, 1.5, (1,), (1, 2, 3), (1, -1)])
def test_wrong_stride(stride):
    with pytest.raises(ValueError, match=r"stride is .*; expected a positive int"):
        orthogonality.convolutional_orthogonality(jnp.ones((3, 3, 2, 4)), stride=stride)


def test_counts_of_numpy_are_counts():
    kernel = jnp.ones((3, 3, 2, 4))
    two = np.int64(2)
    assert orthogonality.spectral_restricted_isometry(
        kernel, iterations=two
    ) == orthogonality.spectral_restricted_isometry(kernel, iterations=2)
    assert orthogonality.convolutional_orthogonality(
        kernel, stride=two
    ) == orthogonality.convolutional_orthogonality(kernel, stride=2)
