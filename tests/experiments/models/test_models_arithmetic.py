"""What the networks compute, against the same written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import ACTIVATIONS, build
from experiments.models.resnet import ResNet
from experiments.models.wide_resnet import WideResNet

pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation
RANDOM = np.random.default_rng(0)


def conv(layer, x, stride=1):
    window = len(layer["kernel"])
    return jax.lax.conv_general_dilated(
        x,
        layer["kernel"],
        (stride, stride),
        [(window // 2, window // 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def norm(layer, x):
    x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
    return x * layer["scale"] + layer["bias"]


def plain_wide_resnet(params, x):
    """WideResNet-10-1: its first block keeps the shape, the others do not."""
    x = conv(params["Conv_0"], x)
    for number, stride in enumerate((1, 2, 2)):
        block = params[f"Block_{number}"]
        active = nn.relu(norm(block["BatchNorm_0"], x))
        y = nn.relu(norm(block["BatchNorm_1"], conv(block["Conv_0"], active, stride)))
        x = conv(block["Conv_2"], active, stride) if number else x
        x = x + conv(block["Conv_1"], y)
    x = nn.relu(norm(params["BatchNorm_0"], x)).mean((1, 2))
    return x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]


def plain_bottlenecks(params, x):
    """Two stages of one block each, with the stem of ImageNet."""
    x = nn.relu(norm(params["BatchNorm_0"], conv(params["Conv_0"], x, 2)))
    padding = [(0, 0), (1, 1), (1, 1), (0, 0)]
    x = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding
    )
    for number, stride in enumerate((1, 2)):
        block = params[f"Block_{number}"]
        norms = [block[f"BatchNorm_{i}"] for i in range(4)]
        y = nn.relu(norm(norms[0], conv(block["Conv_0"], x)))
        y = nn.relu(norm(norms[1], conv(block["Conv_1"], y, stride)))
        y = norm(norms[2], conv(block["Conv_2"], y))
        x = nn.relu(y + norm(norms[3], conv(block["Conv_3"], x, stride)))
    x = x.mean((1, 2))
    return x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]


def plain_vgg(params, x):
    layer = 0
    for layers in (2, 2, 4, 4, 4):
        for _ in range(layers):
            x = conv(params[f"Conv_{layer}"], x) + params[f"Conv_{layer}"]["bias"]
            x = nn.relu(norm(params[f"BatchNorm_{layer}"], x))
            layer += 1
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
    x = x.reshape(batch, channels)
    return x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]


@pytest.mark.parametrize(
    ("model", "plain", "size"),
    [
        (WideResNet(classes=3, depth=10, k=1, width=0.25), plain_wide_resnet, 6),
        (
            ResNet(
                classes=3, blocks=(1, 1), bottleneck=True, imagenet=True, width=1 / 32
            ),
            plain_bottlenecks,
            18,
        ),
        (build("vgg19", classes=3, width=1 / 64), plain_vgg, 32),
    ],
)
def test_networks_compute_what_was_published(model, plain, size):
    images = RANDOM.standard_normal((4, size, size, 3)).astype("f4")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    # Unlike those of an initializer, these have scales and biases that matter.
    variables = jax.tree.map(
        lambda leaf: 1 + 0.5 * RANDOM.standard_normal(leaf.shape).astype("f4"), shapes
    )

    @jax.jit
    def both(variables):
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, plain(variables["params"], images)

    np.testing.assert_allclose(*both(variables), rtol=1e-3, atol=1e-3)


class PlainCNN(nn.Module):
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


def both_networks(name, activation, dtype=jnp.float32):
    model = build(name, classes=5, width=1 / 8, activation=activation, dtype=dtype)
    return model, PlainCNN(model.batch_norm, activation)


@pytest.mark.parametrize(
    ("name", "activation", "dtype"),
    [
        ("cnn", "elu", "float32"),
        ("cnn-plain", "relu", "float32"),
        ("cnn", "relu", "bfloat16"),
    ],
)
def test_cnn_is_the_network_that_flax_layers_make(name, activation, dtype):
    model, plain = both_networks(name, activation, dtype)
    images = RANDOM.standard_normal((3, 9, 8, 2)).astype("f4")
    variables = jax.tree.map(
        lambda leaf: np.abs(RANDOM.standard_normal(leaf.shape)).astype("f4"),
        jax.eval_shape(plain.init, jax.random.key(0), images),
    )
    logits, expected = jax.jit(
        lambda variables: [n.apply(variables, images) for n in (model, plain)]
    )(variables)
    assert logits.shape == (3, 5)
    assert logits.dtype == jnp.float32
    error = abs(logits - expected).max() / abs(expected).max()
    if dtype == "bfloat16":  # of 8 bits
        assert 1e-4 < error < 0.03
    else:
        assert error < 1e-5


def test_cnn_starts_as_flax_layers_do():
    image = jnp.zeros((1, 8, 8, 1))

    @jax.jit
    def kernels(key):
        networks = both_networks("cnn", "relu")
        return [n.init(key, image)["params"]["Conv_2"]["kernel"] for n in networks]

    np.testing.assert_array_equal(*kernels(jax.random.key(1)))
