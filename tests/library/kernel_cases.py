"""Kernels and options that the similarities are tested on, each compiled once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import convsim_jax as cs

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
windows = st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(
    lambda window: np.prod(window) <= 16  # the oracle is slow
)


@st.composite
def layers(draw):
    """The shape of a kernel, and the number of groups of its convolution."""
    groups = draw(st.integers(1, 3))
    M = groups * draw(st.integers(1, 3))
    return (*draw(windows), draw(st.integers(1, 3)), M), groups


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
NOT_KERNELS = [
    (jnp.ones((3, 4)), r"kernel.*\(3, 4\).*rank 2.*3, 4 or 5"),
    (jnp.ones((1,) * 6), r"kernel.*rank 6.*3, 4 or 5"),
    (jnp.ones((0, 3, 2, 4)), r"kernel.*\(0, 3, 2, 4\).*at least one entry"),
    (None, r"kernel is None; expected an array"),
    (jnp.ones((3, 2, 4), int), r"kernel.*int32.*floating"),
    (jnp.ones((3, 2, 4), bool), r"kernel.*bool.*floating"),
    (jnp.ones((3, 2, 4), jnp.complex64), r"kernel.*complex64.*floating"),
]

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
