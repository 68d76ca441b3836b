"""What the networks compute, against the same written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import build
from experiments.models.resnet import ResNet

pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation
RANDOM = np.random.default_rng(0)
BOTTLENECKS = {"blocks": (1, 1), "bottleneck": True, "imagenet": True}


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


def dense(params, x):
    return x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]


def plain_wide_resnet(params, x):
    """WideResNet-10-1: its first block keeps the shape, the others do not."""
    x = conv(params["Conv_0"], x)
    for number, stride in enumerate((1, 2, 2)):
        block = params[f"Block_{number}"]
        active = nn.relu(norm(block["BatchNorm_0"], x))
        y = nn.relu(norm(block["BatchNorm_1"], conv(block["Conv_0"], active, stride)))
        x = conv(block["Conv_2"], active, stride) if number else x
        x = x + conv(block["Conv_1"], y)
    return dense(params, nn.relu(norm(params["BatchNorm_0"], x)).mean((1, 2)))


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
    return dense(params, x.mean((1, 2)))


def plain_vgg(params, x):
    layer = 0
    for layers in (2, 2, 4, 4, 4):
        for _ in range(layers):
            x = conv(params[f"Conv_{layer}"], x) + params[f"Conv_{layer}"]["bias"]
            x = nn.relu(norm(params[f"BatchNorm_{layer}"], x))
            layer += 1
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return dense(params, x.reshape(batch, channels))


def plain_cnn(params, x):
    for layer in range(3):
        x = norm(params[f"BatchNorm_{layer}"], conv(params[f"Conv_{layer}"], x))
        x = nn.max_pool(nn.elu(x), (2, 2), strides=(2, 2))
    return dense(params, x.reshape(len(x), -1))


def plain_cnn_without_norm(params, x):
    for layer in range(3):
        x = conv(params[f"Conv_{layer}"], x) + params[f"Conv_{layer}"]["bias"]
        x = nn.max_pool(nn.relu(x), (2, 2), strides=(2, 2))
    return dense(params, x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("model", "plain", "size"),
    [
        (build("cnn", classes=3, width=1 / 8, activation="elu"), plain_cnn, 9),
        (build("cnn-plain", classes=3, width=1 / 8), plain_cnn_without_norm, 8),
        (build("wrn10-1", classes=3, width=0.25), plain_wide_resnet, 6),
        (ResNet(classes=3, width=1 / 32, **BOTTLENECKS), plain_bottlenecks, 18),
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
        logits, _ = model.apply(variables, images, train=True, mutable=True)
        return logits, plain(variables["params"], images)

    np.testing.assert_allclose(*both(variables), rtol=1e-3, atol=1e-3)
