"""What is measured: the optimizer's update of weights, with a loss in its chain or not.

That is what a user pays for: parameters and state are donated, as in a training loop, so
that no fresh memory is touched. The loss costs the difference.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

import convsim_jax as cs
from experiments.benchmark.networks import Kernels

SGD, ALL_PAIRS = "SGD with momentum", "all pairs"
RECOMMENDED = "scale-free cross-channel"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
STRENGTH = 1e-6  # so small that weights stay what they are over many calls

LOSSES: dict[str, dict[str, Any]] = {
    ALL_PAIRS: {},
    "adjacent pairs": {"pairs": "adjacent"},
    "cross-channel": {"channels": "cross"},
    "cross-channel, adjacent": {"channels": "cross", "pairs": "adjacent"},
    "scale-free": {"normalize": True},
    "scale-free, adjacent": {"normalize": True, "pairs": "adjacent"},
    RECOMMENDED: {"normalize": True, "channels": "cross"},
    f"{RECOMMENDED}, adjacent": {
        "normalize": True,
        "channels": "cross",
        "pairs": "adjacent",
    },
}
PENALTIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "soft orthogonality (SO)": cs.orthogonality.soft_orthogonality,
    "SRIP": cs.orthogonality.spectral_restricted_isometry,
    "OCNN": cs.orthogonality.convolutional_orthogonality,
}


def transformations() -> dict[str, optax.GradientTransformation]:
    """What is chained with SGD: nothing, every option of the loss, every penalty."""
    similarities = {
        name: cs.add_convolutional_similarity(STRENGTH, **options)
        for name, options in LOSSES.items()
    }
    penalties = {name: adding(penalty) for name, penalty in PENALTIES.items()}
    return {SGD: optax.identity()} | similarities | penalties


def adding(penalty: Callable) -> optax.GradientTransformation:
    """Adds the gradient of a penalty of each kernel to the updates."""

    def total(kernels: Kernels) -> jax.Array:
        return jnp.stack([penalty(kernel) for kernel in kernels.values()]).sum()

    def add(updates: Kernels, kernels: Kernels | None) -> Kernels:
        gradient = jax.grad(total)(kernels)
        return jax.tree.map(lambda u, g: u + STRENGTH * g, updates, gradient)

    return optax.stateless(add)


def sgd(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """SGD with momentum behind that transformation of the gradient."""
    return optax.chain(transformation, optax.sgd(LEARNING_RATE, MOMENTUM))


def update(optimizer: optax.GradientTransformation) -> Callable:
    """A function of `(parameters, state)` and gradient, that returns the former anew."""

    def step(carry: tuple, gradient: chex.ArrayTree) -> tuple:
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step
