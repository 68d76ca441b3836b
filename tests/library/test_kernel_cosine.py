"""Cosine of flattened kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import (
    NOT_KERNELS,
    SHAPES,
    normal,
    seeds,
    single,
)


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


@pytest.mark.parametrize(("kernel", "message"), NOT_KERNELS)
def test_kernel_cosine_rejects_what_is_no_kernel(kernel, message):
    with pytest.raises(ValueError, match=message):
        cs.kernel_cosine_similarity(kernel)
