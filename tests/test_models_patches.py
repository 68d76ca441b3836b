"""Convolutions as products of patches against XLA's own."""

import jax
import numpy as np
import pytest

from experiments.models.patches import convolve_patches


@pytest.mark.parametrize("window", [(3, 3), (1, 5)])
def test_a_product_of_patches_is_the_same_convolution(window):
    images = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    kernel = jax.random.normal(jax.random.key(1), (*window, 3, 4))
    expected = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    maps = convolve_patches(images, kernel, (1, 1), "SAME")
    np.testing.assert_allclose(maps, expected, atol=1e-5)
