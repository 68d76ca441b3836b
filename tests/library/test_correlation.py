"""Cross-correlation and autocorrelation of spatial filters, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.spatial.distance import cdist

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import normal, seeds, single, windows

WINDOWS = [(1,), (5,), (1, 1), (3, 3), (2, 4), (4, 1), (1, 3, 2), (2, 2, 2)]
KERNELS = [
    (3, 2, 4),
    (1, 2, 3),
    (1, 1, 3, 2),
    (2, 3, 2, 3),
    (4, 1, 2, 1),
    (2, 1, 2, 1, 2),
]


@pytest.mark.usefixtures("x64")
@given(st.sampled_from(WINDOWS) | windows, seeds)
def test_cross_correlation_is_that_of_scipy(window, seed):
    a, b = normal(seed, (2, *window))
    result = cs.cross_correlate(jnp.asarray(a), jnp.asarray(b))
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, oracle.cross_correlate(a, b), atol=1e-13)


def test_cross_correlation_by_hand():
    # Lags -1, 0, 1: a[1] b[0], a[0] b[0] + a[1] b[1], a[0] b[1].
    result = cs.cross_correlate(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    np.testing.assert_array_equal(result, [6.0, 11.0, 4.0])


def test_cross_correlation_with_a_shifted_delta_shifts():
    a = jnp.zeros((3, 3)).at[2, 0].set(1.0)
    b = jnp.zeros((3, 3)).at[0, 1].set(1.0)
    result = np.asarray(cs.cross_correlate(a, b))
    # a[n] b[n + l] is one at n = (2, 0), l = (-2, 1); lag zero is at (2, 2).
    assert result[0, 3] == 1
    assert result.sum() == 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", [(4,), (2, 3), (2, 1, 2)])
def test_cross_correlation_has_two_derivatives(window):
    a, b = (jnp.asarray(x) for x in normal(1, (2, *window)))
    check_grads(cs.cross_correlate, (a, b), order=2, rtol=1e-6, atol=1e-6)


def test_cross_correlation_under_jit_and_vmap():
    a, b = single(2, (2, 5, 2, 3))
    result = jax.jit(jax.vmap(cs.cross_correlate))(a, b)
    expected = list(map(oracle.cross_correlate, a, b))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def assert_rounded_once(result, exact):
    """Every element is the exact one, rounded: no error of a sum on the way."""
    assert result.shape == exact.shape
    half_unit = float(jnp.finfo(result.dtype).eps) / 2
    error = np.abs(oracle.float64(result) - exact)
    assert np.all(error <= half_unit * np.abs(exact) * 1.001)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_correlates_in_single_precision(dtype):
    a, b = normal(4, (2, 5, 6), dtype)
    result = cs.cross_correlate(a, b)
    assert result.dtype == dtype
    assert_rounded_once(result, oracle.cross_correlate(a, b))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (jnp.ones((2, 2)), jnp.ones(2), r"a and b.*\(2, 2\).*\(2,\).*same rank"),
        (jnp.ones(()), jnp.ones(()), r"a and b.*\(\).*1, 2 or 3"),
        (jnp.ones((1,) * 4), jnp.ones((1,) * 4), r"a and b.*\(1, 1, 1, 1\).*1, 2 or 3"),
        (jnp.ones(2, int), jnp.ones(2, int), r"a and b.*int32.*floating"),
        (jnp.ones(2), jnp.ones(2, jnp.float16), r"a and b.*float32.*float16"),
    ],
)
def test_cross_correlation_rejects(a, b, message):
    with pytest.raises(ValueError, match=message):
        cs.cross_correlate(a, b)


def half_of_lags(kernel):
    """Of all (flattened) lags of all filters those from zero on: one of each pair."""
    inputs, outputs = kernel.shape[-2:]
    full = np.array(
        [
            [
                oracle.cross_correlate(kernel[..., c, m], kernel[..., c, m]).ravel()
                for m in range(outputs)
            ]
            for c in range(inputs)
        ]
    )
    return np.moveaxis(full, -1, 0)[full.shape[-1] // 2 :]


@pytest.mark.usefixtures("x64")
@given(st.sampled_from(KERNELS), seeds)
def test_autocorrelation_holds_each_lag_once(shape, seed):
    kernel = normal(seed, shape)
    A, weights = cs.autocorrelation(jnp.asarray(kernel))
    expected = half_of_lags(kernel)
    lags = (np.prod([2 * n - 1 for n in shape[:-2]]) + 1) // 2
    assert A.shape == (lags, *shape[-2:])
    np.testing.assert_array_equal(weights, [1] + [2] * (lags - 1))
    np.testing.assert_allclose(A[0], expected[0], rtol=1e-12)  # lag zero: the energy
    # Any order of the other lags will do, the same for all filters.
    distances = cdist(np.reshape(A, (lags, -1)), expected.reshape(lags, -1))
    nearest = distances.argmin(1)
    assert sorted(nearest) == list(range(lags))
    np.testing.assert_allclose(A, expected[nearest], rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("channels", "sum"), [("matched", "lci,lcj"), ("cross", "lci,ldj")]
)
@given(st.sampled_from(KERNELS), seeds)
def test_products_of_autocorrelations_are_squares_of_cross_correlations(
    channels, sum, shape, seed
):
    kernel = normal(seed, shape)
    A, weights = cs.autocorrelation(jnp.asarray(kernel))
    result = np.einsum(f"l,{sum}->ij", weights, A, A)
    expected = oracle.similarity_matrix(kernel, channels=channels)
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_autocorrelates_in_single_precision(dtype):
    kernel = normal(5, (9, 2, 3), dtype)
    A, weights = cs.autocorrelation(kernel)
    assert A.dtype == weights.dtype == dtype
    # Along one axis the half is lag 0, 1, 2, ... up to an order of the lags.
    exact = half_of_lags(oracle.float64(kernel))
    nearest = cdist(oracle.float64(A).reshape(9, -1), exact.reshape(9, -1)).argmin(1)
    assert_rounded_once(A, exact[nearest])


def test_autocorrelation_under_jit_grad_and_vmap():
    kernels = single(3, (4, 3, 2, 2, 3))
    A, weights = jax.jit(jax.vmap(cs.autocorrelation))(kernels)
    for k, a, w in zip(kernels, A, weights, strict=True):
        expected, expected_weights = cs.autocorrelation(k)
        np.testing.assert_allclose(a, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(w, expected_weights)
    energy = jax.grad(lambda k: cs.autocorrelation(k)[0][0].sum())(kernels[0])
    np.testing.assert_allclose(energy, 2 * kernels[0], rtol=1e-6)
