"""A network in Linen and in NNX, its maps one layer at a time, and layers in a scan."""

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


def filled(tree, seed=0):
    """Numbers in the place of shapes, above 0 as variances have to be."""
    random = np.random.default_rng(seed)

    def fill(leaf):
        if not hasattr(leaf, "dtype"):
            return leaf
        return jnp.asarray(random.uniform(0.1, 0.4, leaf.shape), leaf.dtype)

    return jax.tree.map(fill, tree)


def close(result, expected):
    """But for rounding, which normalizations by small deviations magnify."""
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


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


# Two convs in a scan.


class LinenLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Conv(x.shape[-1], (3, 3), name="conv")(x), None


class LinenScanned(nn.Module):
    collections: Any  # those that are stacked; others do not leave the scan

    @nn.compact
    def __call__(self, x):
        options = {"split_rngs": {"params": True}, "length": 2}
        layers = nn.scan(LinenLayer, variable_axes={self.collections: 0}, **options)
        return layers(name="layers")(x, None)[0]


class NNXScanned(nnx.Module):
    def __init__(self, rngs, channels):
        make = nnx.vmap(lambda rngs: nnx.Conv(channels, channels, (3, 3), rngs=rngs))
        self.layers = nnx.split_rngs(splits=2)(make)(rngs)

    def __call__(self, x):
        axes = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry}
        return nnx.scan(lambda x, layer: layer(x), **axes)(x, self.layers)


def linen_variables(model, seed=0):
    init = partial(model.init, train=False)
    variables = filled(jax.eval_shape(init, jax.random.key(0), X), seed)
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
    for name, values in (params["norm"] | statistics).items():
        getattr(model.norm, name)[...] = values
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
