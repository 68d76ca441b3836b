"""The networks' fast layers against Flax's and XLA's own."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.classify.models import ACTIVATIONS, MODELS, convolve, max_pool


class Reference(nn.Module):
    """`CNN` of nothing but Flax's layers, with the parameters of the same names."""

    batch_norm: bool
    activation: str

    @nn.compact
    def __call__(self, x, train=False):
        for channels in (4, 8, 16):
            x = nn.Conv(channels, (3, 3), use_bias=not self.batch_norm)(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = ACTIVATIONS[self.activation](x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(5)(x.reshape(len(x), -1))


@pytest.mark.parametrize("window", [(3, 3), (2, 5)])
def test_convolve_is_a_same_convolution(window):
    images = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    kernel = jax.random.normal(jax.random.key(1), (*window, 3, 4))
    expected = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(
        convolve(images, kernel, (1, 1), "SAME"), expected, atol=1e-5
    )


@pytest.mark.parametrize("size", [(8, 8), (9, 11)])
def test_max_pool_is_flax_max_pool(size):
    images = jax.random.normal(jax.random.key(0), (2, *size, 3))
    expected = nn.max_pool(images, (2, 2), strides=(2, 2))
    np.testing.assert_array_equal(max_pool(images), expected)


@pytest.mark.parametrize(("name", "activation"), [("cnn", "elu"), ("cnn-plain", "relu")])
def test_cnn_is_the_network_that_flax_layers_make(name, activation, relaxed_jax):
    model = MODELS[name](classes=5, width=4, activation=activation)
    reference = Reference(model.batch_norm, activation)
    images = jax.random.normal(jax.random.key(0), (3, 9, 8, 2))
    key = jax.random.key(1)
    variables = jax.jit(model.init)(key, images)
    expected_variables = jax.jit(reference.init)(key, images)
    jax.tree.map(np.testing.assert_array_equal, variables, expected_variables)
    logits = jax.jit(model.apply)(variables, images)
    expected = jax.jit(reference.apply)(variables, images)
    assert logits.shape == (3, 5)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
