"""The first layer whitened, against the covariance of every patch in float64."""

import numpy as np
import pytest

from experiments.interventions import INTERVENTIONS
from tests.experiments.test_interventions import DEFAULT, IMAGES, PARAMS
from tests.library import oracle


@pytest.mark.parametrize("kernels", [4, 20])
def test_whitened_maps_of_the_images_are_uncorrelated_and_of_variance_1(kernels):
    params = {"Conv_0": {"kernel": np.ones((3, 2, 2, kernels), np.float32)}}
    ridge, taps = 1e-2, 12
    result = INTERVENTIONS["whitened"].of_amount(ridge).before(params, DEFAULT, IMAGES)
    kernel = oracle.float64(result["Conv_0"]["kernel"])
    # Every patch as a row, in the order of the kernel's axes.
    patches = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 2), (1, 2))
    rows = np.moveaxis(patches, 3, -1).reshape(-1, taps).astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    maps = rows @ kernel.reshape(taps, kernels)[:, :taps]
    expected = (variances / (variances + ridge * variances.mean()))[:kernels]
    np.testing.assert_allclose(np.cov(maps.T, bias=True), np.diag(expected), atol=1e-3)
    np.testing.assert_array_equal(kernel[..., taps:], 1)


def test_constant_images_make_no_kernel_infinite():
    result = INTERVENTIONS["whitened"].before(PARAMS, DEFAULT, np.ones_like(IMAGES))
    for layer in ("Conv_0", "Conv_1"):
        assert np.isfinite(result[layer]["kernel"]).all()


def test_an_image_that_no_kernel_sees_is_refused():
    with pytest.raises(ValueError, match="whitened"):
        INTERVENTIONS["whitened"].before(PARAMS, DEFAULT, IMAGES[..., :1])
