"""Scales and norms of output channels, safe where a channel is zero."""

import jax
import jax.numpy as jnp


def inverse_sqrt(square: jax.Array) -> jax.Array:
    """`1 / sqrt(square)`, and 0 with derivative 0 where `square` is 0."""
    positive = square > 0
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, square, 1.0)), 0.0)


def inverse_scale(kernel: jax.Array) -> jax.Array:
    """One over the largest weight of each output channel, of shape `(1, ..., 1, M)`.

    What it multiplies has powers that neither overflow nor vanish. For functions that do
    not depend on the scale: their derivatives do not depend on it either, and none is
    taken through it. 0 where a channel is zero.
    """
    axes = tuple(range(kernel.ndim - 1))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(kernel), axes, keepdims=True))
    usable = largest >= jnp.finfo(kernel.dtype).tiny
    return jnp.where(usable, 1.0 / jnp.where(usable, largest, 1.0), 0.0)


def channel_norms(kernel: jax.Array) -> jax.Array:
    """The norm of each output channel's kernel, of shape `(1, ..., 1, M)`."""
    axes = tuple(range(kernel.ndim - 1))
    return jnp.linalg.vector_norm(kernel, axis=axes, keepdims=True)


def with_channel_norms(kernel: jax.Array, norms: jax.Array) -> jax.Array:
    """`kernel` with each output channel scaled to the norm given for it."""
    direction = kernel * inverse_scale(kernel)
    axes = tuple(range(kernel.ndim - 1))
    square = jnp.sum(jnp.square(direction), axes, keepdims=True)
    return direction * (inverse_sqrt(square) * norms)
