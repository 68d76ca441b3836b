"""What is read from a network of each of five frameworks: the loss, and the maps."""

import math
from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest
from flax import nnx

import convsim_jax as cs
from tests.library import oracle
from tests.library.framework_networks import CONVOLUTIONS, FRAMEWORKS, IMAGES, network

pytestmark = pytest.mark.usefixtures("relaxed_jax")

every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


@every_framework
def test_loss_with_layers_is_the_sum_by_hand(framework):
    apply, params, kernels = network(framework)
    layers = cs.conv_layers(apply, params, IMAGES)
    assert not layers.left_out
    assert sum(math.prod(layer.stack) for layer in layers) == len(kernels)
    total = cs.total_similarity(params, layers=layers)
    expected = sum(
        oracle.convolutional_similarity(kernel, **options) for kernel, options in kernels
    )
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    mask = cs.conv_mask(params, layers=layers)
    assert sum(jax.tree.leaves(jax.tree.map(lambda x: x is True, mask))) == len(layers)


@pytest.mark.slow
@every_framework
def test_maps_are_those_of_the_layers(framework):
    """And the gradient of a layer's maps, with those of its input stopped, is its own."""
    apply, params, _ = network(framework)
    layers = cs.conv_layers(apply, params, IMAGES)
    last = layers.layers[-1].path

    @partial(eqx.filter_value_and_grad, has_aux=True)
    def slope(params):
        function = cs.with_feature_maps(apply, stop_gradient=True)
        output, maps = function(params, IMAGES)
        return cs.decorrelation(maps[last]), (output, maps)

    (_, (output, maps)), slope = eqx.filter_jit(slope)(params)
    expected = eqx.filter_jit(apply)(params, IMAGES)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-3)
    shapes = {}
    for layer in layers:  # an entry for each time
        for time in range(layer.applications):
            shapes[f"{layer.path}#{time + 1}" if time else layer.path] = layer.outputs
    assert {path: f.shape for path, f in maps.items()} == shapes
    kernels = cs.conv_kernels(slope, layers=layers)
    assert [path for path, kernel in kernels.items() if np.any(kernel)] == [last]


def test_nnx_state_has_the_layers_of_its_module():
    apply, model, _ = network("NNX")
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    of_state = cs.conv_layers(
        lambda params, x: apply(nnx.merge(graph, params, rest), x), params, IMAGES
    )
    assert of_state == cs.conv_layers(apply, model, IMAGES)
    assert len(cs.conv_kernels(params, layers=of_state)) == len(CONVOLUTIONS)
