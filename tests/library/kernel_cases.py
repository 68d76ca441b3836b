"""Kernels, options and functions that are tested alike, each compiled once."""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import convsim_jax as cs
from convsim_jax import orthogonality
from tests.library import oracle

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
windows = st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(
    lambda window: np.prod(window) <= 16  # the oracle is slow
)


@st.composite
def layers(draw):
    """The shape of a kernel, and the number of groups of its convolution."""
    groups = draw(st.integers(1, 3))
    M = groups * draw(st.integers(1, 3))
    return (*draw(windows), draw(st.integers(1, 3)), M), groups


def name_of(options):
    return "-".join(map(str, options.values()))


every_option = pytest.mark.parametrize("options", OPTIONS, ids=name_of)
every_scale_free_option = pytest.mark.parametrize("options", SCALE_FREE, ids=name_of)
small_and_large = pytest.mark.parametrize("shape", [SHAPE, LARGE])


def normal(seed, shape, dtype=np.float64):
    """Of NumPy in its own dtype, of JAX in others."""
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return numbers if dtype is np.float64 else jnp.asarray(numbers, dtype)


single = partial(normal, dtype=jnp.float32)


def convolve(x, kernel, strides=(1, 1), spec="HWIO", **options):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=("NHWC", spec, "NHWC"), **options
    )


def loss(kernel, **options):
    return value_and_gradient(kernel, **options)[0]


def gradient(kernel, **options):
    return value_and_gradient(kernel, **options)[1]


class Function(NamedTuple):
    """A function of one kernel, and its definition in float64."""

    name: str
    function: callable
    definition: callable


def spectral_restricted_isometry(kernel):
    start = jax.random.normal(jax.random.key(0), kernel.shape[-1:], jnp.float32)
    return oracle.spectral_restricted_isometry(kernel, start)


def _of(name, **options):
    function, definition = getattr(cs, name), getattr(oracle, name)
    label = "-".join([name, *map(str, options.values())])
    return Function(label, partial(function, **options), partial(definition, **options))


LOSSES = [
    *(_of("convolutional_similarity", **options) for options in OPTIONS),
    _of("convolutional_similarity", feature_group_count=2),
    _of("convolutional_similarity", **OPTIONS[7], feature_group_count=2),
    _of("convolutional_similarity", **OPTIONS[5], feature_group_count=2, strides=2),
    _of("convolutional_similarity", normalize=True, strides=2, transposed=True),
]
PENALTIES = [
    Function(x.__name__, getattr(orthogonality, x.__name__), x)
    for x in (
        oracle.soft_orthogonality,
        oracle.double_soft_orthogonality,
        oracle.mutual_coherence,
        spectral_restricted_isometry,
        oracle.convolutional_orthogonality,
    )
]
MATRICES = [
    *(
        _of("similarity_matrix", channels=channels, normalize=normalize)
        for channels, normalize in itertools.product(CHANNELS, [False, True])
    ),
    _of("similarity_matrix", channels="cross", feature_group_count=2, strides=2),
    _of("kernel_cosine_similarity"),
]


def every(functions):
    return pytest.mark.parametrize("case", functions, ids=lambda case: case.name)
