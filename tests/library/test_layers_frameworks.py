"""`conv_layers` of networks in five frameworks: the loss with it, and by hand."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

import convsim_jax as cs
from tests.library import oracle
from tests.library.framework_networks import CASES, IMAGES, convolutions, make

pytestmark = pytest.mark.usefixtures("relaxed_jax", "quick_compilation")


def by_hand(kernels):
    """The sum over layers, each over its groups and the lags that count."""
    return sum(
        oracle.convolutional_similarity(
            kernel,
            feature_group_count=asked["groups"],
            strides=(asked["strides"],) * 2,
            transposed=asked.get("transposed", False),
        )
        for kernel, asked in kernels
    )


@pytest.mark.parametrize(("framework", "network"), CASES)
def test_loss_with_layers_is_the_sum_by_hand(framework, network):
    apply, params, kernels = make(framework, network)
    layers = cs.conv_layers(apply, params, IMAGES)
    assert not layers.left_out
    assert sum(math.prod(layer.stack) for layer in layers) == len(kernels)
    total = cs.total_similarity(params, layers=layers)
    np.testing.assert_allclose(total, by_hand(kernels), rtol=1e-4)
    mask = cs.conv_mask(params, layers=layers)
    assert sum(jax.tree.leaves(jax.tree.map(lambda x: x is True, mask))) == len(layers)


def test_nnx_state_has_the_layers_of_its_module():
    apply, model, _ = make("NNX", convolutions)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    of_state = cs.conv_layers(
        lambda params, x: apply(nnx.merge(graph, params, rest), x), params, IMAGES
    )
    assert of_state == cs.conv_layers(apply, model, IMAGES)
    assert cs.conv_kernels(params, layers=of_state).keys() == {
        f"layer_{number}/kernel" for number in range(5)
    }
