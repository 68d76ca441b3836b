"""Convolutions as products of an image's patches with the kernel, for small networks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.convolution import convolve


def convolve_patches(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> jax.Array:
    """A convolution of stride 1 that keeps the image's size, as one matrix product.

    On CPUs, and of several kernels at once under `vmap`, it is four times as fast as
    `convolve` on the smallest images, and as fast on those of 32x32 pixels. It takes
    memory: each pixel is there once for each tap of the window. Off the CPU it is
    `convolve`.

    Args:
        images: shape `(batch, height, width, C)`.
        kernel: shape `(*window, C, M)`, of an odd window.
        window_strides: 1 along both axes.
        padding: half the window on every side.
        **options: as `convolve` takes them.

    Returns:
        Feature maps `(batch, height, width, M)`.
    """
    if jax.default_backend() != "cpu":
        return convolve(images, kernel, window_strides, padding, **options)
    height, width, C, M = kernel.shape
    edges = [(height // 2, height // 2), (width // 2, width // 2)]
    padded = jnp.pad(images, [(0, 0), *edges, (0, 0)])
    rows, columns = images.shape[1:3]
    patches = [
        padded[:, i : i + rows, j : j + columns]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(height * width * C, M)
