"""Convolutions in a form that XLA trains fast on CPUs; elsewhere XLA's own."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
OPTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"
}
Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated`, to be passed to `flax.linen.Conv` under that name.

    On CPUs it has its own gradient, and so no forward-mode derivative. It runs there with
    strides as well; dilated and grouped convolutions are left to XLA.

    Args:
        images: shape `(batch, height, width, C)`.
        kernel: shape `(*window, C, M)`.
        window_strides: of both axes.
        padding: as `lax.conv_general_dilated` takes it.
        **options: its other arguments.

    Returns:
        Feature maps `(batch, height, width, M)`.
    """
    *window, C, M = kernel.shape
    groups = options.get("feature_group_count", 1)
    dilations = (options.get(f"{side}_dilation") or (1,) for side in ("lhs", "rhs"))
    plain = groups == 1 and images.ndim == 4 and all(set(d) == {1} for d in dilations)
    if jax.default_backend() != "cpu" or not plain:
        return lax.conv_general_dilated(
            images, kernel, window_strides, padding, **options
        )
    strides = tuple(window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], window, strides, padding)
    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return images[:, :: strides[0], :: strides[1]] @ kernel.reshape(C, M)
    if strides != (1, 1):
        images, kernel = space_to_depth(images, kernel, strides, padding)
        padding = (0, 0), (0, 0)
    return unit_stride(images, kernel, tuple(map(tuple, padding)))


def space_to_depth(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: Sequence[tuple[int, int]],
) -> tuple[jax.Array, jax.Array]:
    """The operands of the same convolution with stride 1 and no padding.

    Each block of `strides` pixels becomes one pixel with so many times the channels, and
    the kernel likewise, after zeros have filled up its last blocks. The gradients of a
    convolution with strides would be dilated ones, which are slow.
    """
    batch, *size, C = images.shape
    *window, _, M = kernel.shape
    blocks = [-(-w // s) for w, s in zip(window, strides, strict=True)]
    steps = [
        (n + low + high - w) // s
        for n, (low, high), w, s in zip(size, padding, window, strides, strict=True)
    ]
    across = [(n + b) * s for n, b, s in zip(steps, blocks, strides, strict=True)]
    edges = [
        (low, length - n - low, 0)
        for n, (low, _), length in zip(size, padding, across, strict=True)
    ]
    none = (0, 0, 0)
    zero = jnp.zeros((), images.dtype)
    images = lax.pad(images, zero, (none, *edges, none))
    rows, columns = (n + b for n, b in zip(steps, blocks, strict=True))
    images = images.reshape(batch, rows, strides[0], columns, strides[1], C)
    images = images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
    filled = [(0, b * s - w) for b, s, w in zip(blocks, strides, window, strict=True)]
    kernel = jnp.pad(kernel, (*filled, (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks[0], strides[0], blocks[1], strides[1], C, M)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(*blocks, -1, M)
    return images, kernel


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def unit_stride(images: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """A convolution whose gradients are such convolutions again.

    XLA has fast code for this form alone. It brings others into it, the gradients of a
    convolution among them, but not inside loops: there they run a hundred times slower.
    Under `vmap`, too, one after another is faster than the grouped convolution that JAX
    would make of them.
    """
    return _one_after_another(padding)(images, kernel)


@cache
def compiler_options() -> dict[str, str | bool]:
    """What a program that trains is to be compiled with, for `jax.jit` and the like.

    On CPUs XLA hands convolutions to a library that runs the gradient of the kernel on
    one thread. Its own code takes as long as PyTorch's; of sums the library is better.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=OPTIONS)
    except jax.errors.JaxRuntimeError:  # another version of XLA, without that library
        return {}
    return OPTIONS


def _one_after_another(padding: Padding) -> Any:
    return jax.custom_batching.sequential_vmap(
        partial(
            lax.conv_general_dilated,
            window_strides=(1, 1),
            padding=padding,
            dimension_numbers=LAYOUT,
        )
    )


def _forward(
    images: jax.Array, kernel: jax.Array, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return unit_stride(images, kernel, padding), (images, kernel)


def _backward(
    padding: Padding, operands: tuple[jax.Array, jax.Array], slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = operands
    sides = tuple(
        (w - 1 - low, w - 1 - high)
        for w, (low, high) in zip(kernel.shape[:2], padding, strict=True)
    )
    by_images = unit_stride(slope, kernel[::-1, ::-1].swapaxes(2, 3), sides)
    # Batch and channels change places: the sum is over images, the window a whole image.
    by_kernel = unit_stride(
        images.transpose(3, 1, 2, 0), slope.transpose(1, 2, 0, 3), padding
    )
    return by_images, by_kernel.transpose(1, 2, 0, 3)


unit_stride.defvjp(_forward, _backward)
