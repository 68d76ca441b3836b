"""Convolutions as products of patches against XLA's own."""

import jax
import numpy as np
import pytest

from experiments.models.convolution import convolve, convolve_patches


def expected(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("window", [(3, 3), (1, 5)])
def test_a_product_of_patches_is_the_same_convolution(window):
    images = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    kernel = jax.random.normal(jax.random.key(1), (*window, 3, 4))
    maps = convolve_patches(images, kernel)
    np.testing.assert_allclose(maps, expected(images, kernel), atol=1e-5)


@pytest.mark.parametrize(("size", "by_patches"), [(2, True), (3, False)])
def test_tiny_images_are_taken_apart_into_patches(size, by_patches):
    images = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def maps(images, kernel):
        return convolve(images, kernel, (1, 1), "SAME")

    np.testing.assert_allclose(maps(images, kernel), expected(images, kernel), atol=1e-5)
    program = str(jax.make_jaxpr(maps)(images, kernel))
    assert ("conv_general_dilated" not in program) == by_patches
