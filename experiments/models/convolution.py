"""Convolutions in a form that XLA trains fast on CPUs; elsewhere XLA's own."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

FEW_PIXELS = 4
OPTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"
}


class Geometry(NamedTuple):
    """Where a convolution looks; of both axes, as `lax.conv_general_dilated` takes it."""

    window_strides: tuple[int, ...] = (1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    lhs_dilation: tuple[int, ...] = (1, 1)
    rhs_dilation: tuple[int, ...] = (1, 1)


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated`, to be passed to `flax.linen.Conv` under that name.

    Of images `(batch, height, width, C)` and a kernel `(*window, C, M)` it makes maps
    `(batch, height, width, M)`. On CPUs it has its own gradient, and so no forward-mode
    derivative. Convolutions of groups and of more or fewer than two axes are XLA's
    everywhere.
    """
    if jax.default_backend() != "cpu" or feature_group_count > 1 or images.ndim != 4:
        return lax.conv_general_dilated(
            images,
            kernel,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            feature_group_count=feature_group_count,
            **options,
        )
    ones = (1, 1)
    spread = tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        window = [(w - 1) * d + 1 for w, d in zip(kernel.shape, spread, strict=False)]
        padding = lax.padtype_to_pads(images.shape[1:3], window, window_strides, padding)
    geometry = Geometry(
        tuple(window_strides),
        tuple((low, high) for low, high in padding),
        tuple(lhs_dilation or ones),
        spread,
    )
    return convolution(images, kernel, geometry)


def as_product(
    images: jax.Array, kernel: jax.Array, geometry: Geometry
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """How it is done by one product of matrices, where CPUs are faster at that."""
    ones = (1, 1)
    if kernel.shape[:2] == ones and geometry == Geometry(geometry.window_strides):
        return partial(convolve_pixels, strides=geometry.window_strides)
    half = tuple((size // 2, size // 2) for size in kernel.shape[:2])
    odd = all(size % 2 for size in kernel.shape[:2])
    few = math.prod(images.shape[1:3]) <= FEW_PIXELS
    return (
        convolve_patches if few and odd and geometry == Geometry(padding=half) else None
    )


def convolve_pixels(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...]
) -> jax.Array:
    """A convolution of one tap, which then needs no transposed copies."""
    down, across = strides
    images = images[:, ::down, ::across]
    C, M = kernel.shape[2:]
    return (images.reshape(-1, C) @ kernel[0, 0]).reshape(*images.shape[:-1], M)


def convolve_patches(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of stride 1 that keeps the image's size, as one matrix product.

    On CPUs it is five times as fast as XLA's on images of 2x2 pixels, and slower on those
    of 8x8 and more. It takes memory: each pixel is there once for each tap of the window,
    which is odd.
    """
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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """A convolution whose gradients are such convolutions again.

    XLA has fast code for this form of the arguments alone. It brings others into it, the
    gradients of a convolution among them, but not inside loops: there they run a hundred
    times slower. Under `vmap`, too, one after another is faster than the grouped
    convolution that JAX would make of them. Where a product of matrices is faster still,
    training takes that; `cs.with_feature_maps` sees a convolution all the same.
    """
    one_after_another = jax.custom_batching.sequential_vmap(
        partial(
            lax.conv_general_dilated,
            **geometry._asdict(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    )
    return one_after_another(images, kernel)


def _forward(
    images: jax.Array, kernel: jax.Array, geometry: Geometry
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    product = as_product(images, kernel, geometry)
    if product is not None:
        return product(images, kernel), (images, kernel)
    return convolution(images, kernel, geometry), (images, kernel)


def _backward(
    geometry: Geometry, operands: tuple[jax.Array, jax.Array], slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = operands
    if (product := as_product(images, kernel, geometry)) is not None:
        return jax.vjp(product, images, kernel)[1](slope)
    strides, padding, lhs_dilation, rhs_dilation = geometry
    sides, ends = [], []
    for axis, (low, _) in enumerate(padding):
        image = (images.shape[1 + axis] - 1) * lhs_dilation[axis] + 1
        window = (kernel.shape[axis] - 1) * rhs_dilation[axis] + 1
        out = (slope.shape[1 + axis] - 1) * strides[axis] + 1
        sides.append((window - 1 - low, image - out + low))
        ends.append((low, window - 1 + out - image - low))
    of_images = convolution(
        slope,
        kernel[::-1, ::-1].swapaxes(2, 3),
        Geometry(lhs_dilation, tuple(sides), strides, rhs_dilation),
    )
    # Batch and channels change places: the sum is over images, the window a whole image.
    of_kernel = convolution(
        images.transpose(3, 1, 2, 0),
        slope.transpose(1, 2, 0, 3),
        Geometry(rhs_dilation, tuple(ends), lhs_dilation, strides),
    )
    return of_images, of_kernel.transpose(1, 2, 0, 3)


convolution.defvjp(_forward, _backward)


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
