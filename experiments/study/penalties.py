"""Losses on conv kernels that Convolutional Similarity is compared with.

Each is a function of the parameters of one network, summed over its conv layers.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import convsim_jax as cs

Penalty = Callable[[chex.ArrayTree], jax.Array]

# How alike two pixels of a natural image are, at a distance of one.
CORRELATION = 0.9


def of_layers(of_kernel: Callable[[jax.Array], jax.Array]) -> Penalty:
    """The sum over the conv kernels of a network."""

    def penalty(params: chex.ArrayTree) -> jax.Array:
        kernels = cs.conv_kernels(params).values()
        return jnp.stack([of_kernel(kernel) for kernel in kernels]).sum()

    return penalty


def squared_cosine(kernel: jax.Array) -> jax.Array:
    """Mean over pairs of the squared cosine of two kernels: 0 if all are orthogonal."""
    M = kernel.shape[-1]
    squares = jnp.square(cs.kernel_cosine_similarity(kernel))
    return jnp.triu(squares, 1).sum() / max(M * (M - 1) / 2, 1)


def squared_cosine_on_images(kernel: jax.Array) -> jax.Array:
    """The same, of the maps of natural images, to which all lags contribute.

    The inner product of two maps is that of their kernels in the metric of the images'
    autocorrelation, for which `CORRELATION ** distance` is taken, the same in every
    channel and 0 between channels.
    """
    height, width, *_ = kernel.shape
    taps = np.array(list(product(range(height), range(width))), float)
    distance = np.linalg.norm(taps[:, None] - taps[None], axis=-1)
    root = np.linalg.cholesky(CORRELATION**distance).T
    seen = jnp.tensordot(
        jnp.asarray(root, kernel.dtype),
        kernel.reshape(len(taps), *kernel.shape[2:]),
        axes=1,
        precision=jax.lax.Precision.HIGHEST,
    )
    return squared_cosine(seen.reshape(kernel.shape))


def minimize(penalty: Penalty, params: chex.ArrayTree, steps: int) -> chex.ArrayTree:
    """Parameters after steps down a penalty, as `cs.minimize_similarity` takes them."""
    optimizer = optax.adam(2e-3)

    def step(_: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(penalty)(params), state, params)
        return optax.apply_updates(params, updates), state

    carry = (params, optimizer.init(params))
    return jax.lax.fori_loop(0, steps, step, carry)[0]


def add_gradient(penalty: Penalty, strength: Any) -> optax.GradientTransformation:
    """Adds `strength` times the gradient of a penalty to the updates."""

    def add(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(
            lambda u, g: u + strength * g, updates, jax.grad(penalty)(params)
        )

    return optax.stateless(add)
