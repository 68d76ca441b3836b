"""What every function of one kernel has to do: losses, penalties, matrices."""

import inspect
import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from convsim_jax import orthogonality
from tests.library import oracle
from tests.library.kernel_cases import (
    LARGE,
    LOSSES,
    MATRICES,
    PENALTIES,
    every,
    normal,
)

SHAPE = (2, 2, 4)
every_function = every([*LOSSES, *PENALTIES, *MATRICES])
every_scalar = every([*LOSSES, *PENALTIES])


def test_every_penalty_of_the_literature_is_here():
    functions = inspect.getmembers(orthogonality, inspect.isfunction)
    public = {name for name, x in functions if x.__module__ == orthogonality.__name__}
    assert {x for x in public if x[0] != "_"} == {case.name for case in PENALTIES}


def test_the_library_needs_neither_models_nor_experiments():
    program = "import sys, convsim_jax, convsim_jax.orthogonality; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "convsim_jax" in loaded
    assert not {"flax", "equinox", "experiments", "matplotlib"} & set(loaded)


def weighted(function):
    """Of a matrix a sum of its entries with weights that all differ."""

    def scalar(kernel):
        result = function(kernel)
        weights = np.sin(1.0 + np.arange(np.size(result))).reshape(np.shape(result))
        return (result * weights.astype(result.dtype)).sum() if result.ndim else result

    return scalar


def definition(case):
    return weighted(lambda kernel: np.asarray(case.definition(kernel)))


@cache
def value_and_slope(case):
    return jax.jit(jax.value_and_grad(weighted(case.function)))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@every_function
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 2, 4), (2, 1, 2, 1, 4)], ids=str)
def test_value_and_gradient_are_those_of_the_definition(case, shape):
    kernel, direction = normal(0, shape), normal(1, shape)
    value, slope = value_and_slope(case)(kernel)
    assert value.dtype == slope.dtype == jnp.float64
    np.testing.assert_allclose(value, definition(case)(kernel), rtol=1e-10)
    expected = oracle.slope(definition(case), kernel, direction)
    np.testing.assert_allclose(np.vdot(slope, direction), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@every_scalar
def test_second_derivative_in_both_modes(case):
    kernel, direction = jnp.asarray(normal(2, SHAPE)), jnp.asarray(normal(3, SHAPE))

    def forward(kernel):
        return jax.jvp(case.function, (kernel,), (direction,))[1]

    def reverse(kernel):
        return jnp.vdot(jax.grad(case.function)(kernel), direction)

    slopes = jax.jit(lambda k: [jax.grad(f)(k) for f in (forward, reverse)])(kernel)
    expected = oracle.slope(lambda k: value_and_slope(case)(k)[1], kernel, direction)
    for curvature in slopes:
        assert oracle.relative_error(curvature, expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@every_function
def test_dtype_is_kept_and_rounds_once(case, dtype):
    kernel = (normal(4, LARGE) / 2).astype(dtype)
    result = case.function(jnp.asarray(kernel))
    assert result.dtype == dtype
    # Entry by entry: half a unit for the result, and some of the sums before.
    expected = case.definition(oracle.float64(kernel))
    rounding = float(jnp.finfo(dtype).eps) / 2 + 3e-6
    np.testing.assert_allclose(oracle.float64(result), expected, rounding, 1e-6)


@pytest.mark.slow
@every_function
def test_vmapped_and_eager_is_jitted(case):
    kernels = normal(5, (3, *SHAPE), jnp.float32)
    results = jax.jit(jax.vmap(case.function))(kernels)
    for kernel, result in zip(kernels, results, strict=True):
        expected = case.function(kernel)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@every_function
@pytest.mark.parametrize("shape", [SHAPE, LARGE], ids=str)
def test_zero_kernels(case, shape):
    value, slope = value_and_slope(case)(jnp.zeros(shape))
    expected = definition(case)(np.zeros(shape))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.usefixtures("x64")
@every_function
def test_one_zero_kernel_among_others(case):
    kernel, direction = normal(6, SHAPE), normal(7, SHAPE)
    kernel[..., 1], direction[..., 1] = 0, 0
    value, slope = value_and_slope(case)(jnp.asarray(kernel))
    np.testing.assert_allclose(value, definition(case)(kernel), rtol=1e-10)
    assert np.all(np.isfinite(slope))
    if case in LOSSES:
        np.testing.assert_array_equal(slope[..., 1], 0)
    expected = oracle.slope(definition(case), kernel, direction)
    np.testing.assert_allclose(np.vdot(slope, direction), expected, rtol=1e-6, atol=1e-9)


@every_function
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (jnp.ones((3, 4)), r"kernel.*\(3, 4\).*rank 2.*3, 4 or 5"),
        (jnp.ones((1,) * 6), r"kernel.*rank 6.*3, 4 or 5"),
        (jnp.ones((0, 3, 2, 4)), r"kernel.*\(0, 3, 2, 4\).*at least one entry"),
        (None, r"kernel is None; expected an array"),
        (jax.ShapeDtypeStruct(SHAPE, jnp.float32), r"kernel is Shape.*expected an array"),
        (jnp.ones(SHAPE, int), r"kernel.*int32.*floating"),
        (jnp.ones(SHAPE, bool), r"kernel.*bool.*floating"),
        (jnp.ones(SHAPE, jnp.complex64), r"kernel.*complex64.*floating"),
    ],
    ids=["rank-2", "rank-6", "empty", "none", "abstract", "integer", "bool", "complex"],
)
def test_rejects_what_is_no_kernel(case, kernel, message):
    with pytest.raises(ValueError, match=message):
        case.function(kernel)
    if case.name == "kernel_cosine_similarity":
        with pytest.raises(ValueError, match=message):
            cs.autocorrelation(kernel)
