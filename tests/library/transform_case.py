"""A network of a conv and a dense layer, and what an update of it should become."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.library import oracle

STRENGTH, LEARNING_RATE = 0.5, 0.1
SHAPE = (2, 2, 2, 3)


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / 2, dtype)


def tree(seed, dtype=jnp.float32):
    """Parameters, or updates of them: a conv layer and a dense one."""
    return {
        "conv": {
            "kernel": normal(seed, SHAPE, dtype),
            "bias": normal(seed + 1, (3,), dtype),
        },
        "dense": {"kernel": normal(seed + 2, (3, 2), dtype)},
    }


PARAMS, UPDATES = tree(0), tree(10)


def similarity_gradient(kernel, **options):
    return oracle.gradient(
        lambda k: oracle.convolutional_similarity(k, **options), kernel
    )


def added(updates=UPDATES, params=PARAMS, strength=STRENGTH, **options):
    """What the kernel's update should become, in float64."""
    kernel, update = (oracle.float64(t["conv"]["kernel"]) for t in (params, updates))
    return update + strength * similarity_gradient(kernel, **options)


def assert_added(result, expected, updates=UPDATES):
    """The kernel's update is `expected`, every other is what it was."""
    np.testing.assert_allclose(result["conv"]["kernel"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result["conv"]["bias"], updates["conv"]["bias"])
    np.testing.assert_array_equal(result["dense"]["kernel"], updates["dense"]["kernel"])


def one_update(transformation, updates=UPDATES, params=PARAMS):
    state = transformation.init(params)
    return jax.jit(transformation.update)(updates, state, params)[0]
