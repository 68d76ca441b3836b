"""One network in Linen and in NNX, its weights, and its maps one layer at a time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from convsim_jax.flax import FeatureMaps


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


X = images(2, 6, 5, 3)


def close(result, expected):
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


# Conv, batch norm, ReLU, then a block of its own with a conv, no norm, a shortcut and
# ReLU, then a dense layer.


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(x + nn.Conv(4, (3, 2), name="conv")(x))


class LinenNet(nn.Module):
    block: Any = LinenBlock

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), strides=2, name="stem")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = self.block(name="block")(nn.relu(x))
        return nn.Dense(2)(x.mean((1, 2)))


class NNXBlock(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 2), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(x + self.conv(x))


class NNXNet(nnx.Module):
    def __init__(self, rngs, transform=lambda block: block):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.block = NNXBlock(rngs)
        self.dense = nnx.Linear(4, 2, rngs=rngs)
        self.apply_block = transform(lambda block, x: block(x))

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        x = self.apply_block(self.block, self.dropout(x))
        return self.dense(x.mean((1, 2)))


def linen_variables(model, seed=0):
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(seed), X)
    statistics = {"mean": images(4, seed=1), "var": jnp.exp(images(4, seed=2))}
    return variables | {"batch_stats": {"norm": statistics}}


def nnx_net(*transform):
    """An NNX net with the weights of the Linen one, left in training mode."""
    model = NNXNet(nnx.Rngs(0), *transform)
    variables = linen_variables(LinenNet())
    params, statistics = variables["params"], variables["batch_stats"]["norm"]
    for conv, values in [
        (model.stem, params["stem"]),
        (model.block.conv, params["block"]["conv"]),
    ]:
        conv.kernel[...], conv.bias[...] = values["kernel"], values["bias"]
    model.norm.mean[...], model.norm.var[...] = statistics["mean"], statistics["var"]
    return model


def expected_maps(variables, activation=jax.nn.relu):
    """The same network, one layer at a time."""
    params, statistics = variables["params"], variables["batch_stats"]["norm"]
    stem = nn.Conv(4, (3, 3), strides=2).apply({"params": params["stem"]}, X)
    scale = params["norm"]["scale"] / jnp.sqrt(statistics["var"] + 1e-5)
    stem = (stem - statistics["mean"]) * scale + params["norm"]["bias"]
    block = nn.Conv(4, (3, 2)).apply({"params": params["block"]["conv"]}, nn.relu(stem))
    return {
        "stem": FeatureMaps(stem, activation(stem)),
        "block/conv": FeatureMaps(block, activation(block)),
    }
