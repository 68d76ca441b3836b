"""Large windows, a block of input channels at a time: against power spectra of NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from convsim_jax._blocks import number_of_blocks
from tests.library import oracle
from tests.library.kernel_cases import OPTIONS, every_option, normal

pytestmark = pytest.mark.usefixtures("x64")

SHAPE = (7, 7, 16, 48)  # 8 blocks of 2 input channels
GROUPED, GROUPS = (7, 7, 8, 96), 4  # 8 blocks of 1 input channel
SCALE_FREE = OPTIONS[1]  # in three passes over the blocks


def similarity(kernel, *, pairs, channels, normalize):
    *window, _, M = kernel.shape
    lags = [2 * n - 1 for n in window]
    power = np.abs(np.fft.fftn(kernel, lags, range(len(window)))) ** 2
    if channels == "cross":
        power = power.sum(-2)
    rows = power.reshape(-1, M) / np.sqrt(math.prod(lags))
    matrix = rows.T @ rows
    if normalize:
        own = np.sqrt(np.diag(matrix))
        matrix = matrix / np.outer(own, own)
    of_pairs = matrix[np.triu_indices(M, 1)] if pairs == "all" else np.diag(matrix, 1)
    return of_pairs.mean() if normalize else of_pairs.sum()


def similarity_of(options, groups=1):
    return functools.partial(
        cs.convolutional_similarity, **options, feature_group_count=groups
    )


@functools.cache
def program(shape=SHAPE, groups=1, **options):
    """Value and gradient, compiled."""
    loss = similarity_of(options, groups)
    return jax.jit(jax.value_and_grad(loss)).lower(jnp.zeros(shape)).compile()


@every_option
def test_similarity_by_power_spectra_is_its_definition(options):
    kernel = normal(1, (5, 3, 2, 3))
    expected = oracle.convolutional_similarity(kernel, **options)
    np.testing.assert_allclose(similarity(kernel, **options), expected, rtol=1e-12)


@every_option
def test_value_and_gradient_of_several_blocks(options):
    kernel, direction = normal(2, SHAPE), normal(3, SHAPE)
    exact = functools.partial(similarity, **options)
    value, gradient = program(**options)(kernel)
    np.testing.assert_allclose(value, exact(kernel), rtol=1e-10)
    expected = oracle.slope(exact, kernel, direction)
    np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-6)


@pytest.mark.slow
@every_option
@pytest.mark.parametrize("shape", [SHAPE, (3, 3, 64, 128)], ids=str)
def test_no_layer_needs_much_more_memory_than_its_own(shape, options):
    compiled = program(shape, **options)
    nbytes = math.prod(shape) * np.dtype(np.float64).itemsize
    # Neighbours of small windows: the kernel between zeros, and its gradient so.
    beside = shape != SHAPE and options["pairs"] == "adjacent"
    limit = 2.1 if beside and options["channels"] == "matched" else 1.5
    assert compiled.memory_analysis().temp_size_in_bytes <= limit * nbytes


@pytest.mark.parametrize("options", [SCALE_FREE, OPTIONS[6]], ids=str)
def test_groups_in_blocks(options):
    kernel = normal(4, GROUPED)
    compiled = program(GROUPED, GROUPS, **options)
    groups = np.split(kernel, GROUPS, -1)
    each = [similarity(group, **options) for group in groups]
    expected = np.mean(each) if options["normalize"] else np.sum(each)
    value, gradient = compiled(kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    direction = normal(5, GROUPED)
    share = GROUPS if options["normalize"] else 1
    slopes = [
        oracle.slope(functools.partial(similarity, **options), *pair) / share
        for pair in zip(groups, np.split(direction, GROUPS, -1), strict=True)
    ]
    np.testing.assert_allclose(np.sum(gradient * direction), np.sum(slopes), rtol=1e-6)
    # Groups one after the other in memory: two copies of the kernel, as in one block.
    assert compiled.memory_analysis().temp_size_in_bytes <= 3 * kernel.nbytes


def test_second_derivative_in_blocks():
    kernel, direction = normal(6, SHAPE), normal(7, SHAPE)

    @jax.jit
    @jax.grad
    def result(kernel):
        return jnp.vdot(jax.grad(similarity_of(SCALE_FREE))(kernel), direction)

    expected = oracle.slope(lambda k: program(**SCALE_FREE)(k)[1], kernel, direction)
    assert oracle.relative_error(result(jnp.asarray(kernel)), expected) < 1e-6


def test_several_kernels_in_blocks():
    kernels = normal(8, (2, *SHAPE))
    of_each = jax.jit(jax.vmap(jax.value_and_grad(similarity_of(SCALE_FREE))))
    values, gradients = of_each(jnp.asarray(kernels))
    for kernel, *results in zip(kernels, values, gradients, strict=True):
        for result, expected in zip(results, program(**SCALE_FREE)(kernel), strict=True):
            assert oracle.relative_error(result, expected) < 1e-10


def test_half_precision_in_blocks_rounds_once():
    kernel = jnp.asarray(normal(9, SHAPE), jnp.bfloat16)
    results = jax.jit(jax.value_and_grad(similarity_of(SCALE_FREE)))(kernel)
    exact = program(**SCALE_FREE)(oracle.float64(kernel))
    for result, expected in zip(results, exact, strict=True):
        assert result.dtype == jnp.bfloat16
        assert oracle.relative_error(result, expected) <= jnp.finfo(jnp.bfloat16).eps


@pytest.mark.parametrize(
    ("shape", "groups", "blocks"),
    [
        ((7, 7, 3, 64), 1, 1),  # small
        ((7, 7, 3, 64), 4, 3),  # as large as it can be divided
        (SHAPE, 1, 8),
        ((11, 67, 64), 1, 67),  # a prime number of channels
        ((5, 5, 128, 128), 1, 32),  # 12,800 weights each
        ((25, 1, 8192), 1, 1),  # one channel cannot be divided
    ],
)
def test_number_of_blocks_on_a_cpu(shape, groups, blocks):
    assert number_of_blocks(jnp.zeros(shape), groups) == blocks
