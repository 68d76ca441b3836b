"""Batch normalisation whose gradient XLA computes in two passes over the images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` over the last axis, of the same variables and twice as fast.

    XLA derives a gradient that reads the images once for each of several sums, on CPUs
    with code that does not fuse them. Here it is written out. It is Flax's in what it is
    an instance of, so that whatever looks for normalizations finds it, but only
    `use_running_average`, `momentum` and the result's `dtype` may be set. Sums are taken
    in float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Feature maps `(batch, ..., M)` to those of mean 0 and variance 1, rescaled."""
        if mask is not None:
            raise ValueError(f"mask is of shape {mask.shape}; expected None")
        average = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        x = x.astype(jnp.float32)
        row = (1,) * (x.ndim - 1) + shape
        scale, bias = scale.reshape(row), bias.reshape(row)
        if average:
            factor = scale * jax.lax.rsqrt(var.value.reshape(row) + EPSILON)
            return (factor * (x - mean.value.reshape(row)) + bias).astype(self.dtype)
        y, *moments = standardized(x, scale, bias)
        if not self.is_initializing():
            for kept, new in zip((mean, var), moments, strict=True):
                new = jax.lax.stop_gradient(new).reshape(shape)
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return y.astype(self.dtype)


@jax.custom_vjp
def standardized(
    x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`scale (x - mean) / sqrt(variance + EPSILON) + bias`, the mean and the variance.

    All but x are of shape `(1, ..., 1, M)`. The moments are taken as constants: they have
    no gradient of their own.
    """
    return _forward(x, scale, bias)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
    axes = tuple(range(x.ndim - 1))
    mean, square = (each.mean(axes, keepdims=True) for each in (x, x * x))
    variance = jnp.maximum(square - mean * mean, 0)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    y = (x - mean) * (scale * inverse) + bias
    return (y, mean, variance), (x, mean, inverse, scale)


def _backward(kept: Any, slopes: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = kept
    slope, *_ = jax.lax.optimization_barrier(slopes)  # else computed again in each pass
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    of_bias = slope.sum(axes, keepdims=True)
    of_scale = inverse * ((slope * x).sum(axes, keepdims=True) - mean * of_bias)
    y = (x - mean) * (inverse * of_scale / count)
    return scale * inverse * (slope - of_bias / count - y), of_scale, of_bias


standardized.defvjp(_forward, _backward)
