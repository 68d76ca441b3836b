"""One network of every kind of convolution, in five frameworks, and its kernels by hand.

Networks are traced to learn their parameters' shapes, and filled with random numbers.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from functools import cache

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import linen as nn
from flax import nnx

from tests.library.flax_networks import LinenScanned, NNXScanned, filled

IMAGES = jnp.ones((2, 8, 8, 4))
KEY = jax.random.key(0)
WINDOW, LENGTH = (3, 2), 2

# In the order in which they are applied: the kernel, and what counts for the loss.
CONVOLUTIONS = {
    "strided": ((*WINDOW, 4, 8), {"strides": (2, 2)}),
    "depthwise": ((*WINDOW, 1, 8), {"feature_group_count": 8}),
    "grouped and dilated": ((*WINDOW, 4, 10), {"feature_group_count": 2}),
    "scanned": ((LENGTH, 3, 3, 10, 10), {}),
    "normed": ((*WINDOW, 10, 6), {}),
    "transposed": ((*WINDOW, 6, 5), {"strides": (2, 2), "transposed": True}),
}


def linen():
    layers = [
        nn.Conv(8, WINDOW, 2),
        nn.Conv(8, WINDOW, feature_group_count=8),
        nn.Conv(10, WINDOW, feature_group_count=2, kernel_dilation=2),
        LinenScanned("params"),
        nn.WeightNorm(nn.Conv(6, WINDOW)),
        nn.ConvTranspose(5, WINDOW, (2, 2), transpose_kernel=True),
    ]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for layer in layers:
                x = layer.copy()(x)
            return x

    params = jax.eval_shape(Net().init, KEY, IMAGES)["params"]
    return lambda params, x: Net().apply({"params": params}, x), params


def nnx_():
    def net():
        rngs = nnx.Rngs(0)
        return nnx.Sequential(
            nnx.Conv(4, 8, WINDOW, 2, rngs=rngs),
            nnx.Conv(8, 8, WINDOW, feature_group_count=8, rngs=rngs),
            nnx.Conv(8, 10, WINDOW, feature_group_count=2, kernel_dilation=2, rngs=rngs),
            NNXScanned(rngs, 10),
            nnx.WeightNorm(nnx.Conv(10, 6, WINDOW, rngs=rngs), rngs=rngs),
            nnx.ConvTranspose(6, 5, WINDOW, (2, 2), rngs=rngs),
        )

    return lambda model, x: model(x), nnx.eval_shape(net)


class EquinoxScanned(eqx.Module):
    layers: eqx.nn.Conv2d

    def __init__(self, channels):
        @eqx.filter_vmap
        def make(key):
            return eqx.nn.Conv2d(channels, channels, 3, padding="SAME", key=key)

        self.layers = make(jax.random.split(KEY, LENGTH))

    def __call__(self, x, key=None):
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def step(x, arrays):
            return eqx.combine(arrays, static)(x), None

        return jax.lax.scan(step, x, arrays)[0]


def equinox():
    def net():
        same = {"padding": "SAME", "key": KEY}
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(4, 8, WINDOW, 2, **same),
                eqx.nn.Conv2d(8, 8, WINDOW, groups=8, **same),
                eqx.nn.Conv2d(8, 10, WINDOW, groups=2, dilation=2, **same),
                EquinoxScanned(10),
                eqx.nn.WeightNorm(eqx.nn.Conv2d(10, 6, WINDOW, **same), axis=0),
                eqx.nn.ConvTranspose2d(6, 5, WINDOW, 2, **same),
            ]
        )

    def apply(model, x):
        return jax.vmap(model)(x.transpose(0, 3, 1, 2))

    return apply, eqx.filter_eval_shape(net)


def haiku():
    def net(x):
        scanned = hk.experimental.layer_stack(LENGTH)
        layers = [
            hk.Conv2D(8, WINDOW, 2),
            hk.Conv2D(8, WINDOW, feature_group_count=8),
            hk.Conv2D(10, WINDOW, feature_group_count=2, rate=2),
            scanned(lambda x: hk.Conv2D(10, 3)(x)),
            hk.Conv2D(6, WINDOW),
            hk.Conv2DTranspose(5, WINDOW, 2),
        ]
        return hk.Sequential(layers)(x)

    transformed = hk.without_apply_rng(hk.transform(net))
    return transformed.apply, jax.eval_shape(transformed.init, KEY, IMAGES)


def keras_():
    layers, same = keras.layers, {"padding": "same"}
    model = keras.Sequential(
        [
            keras.Input(IMAGES.shape[1:]),
            layers.Conv2D(8, WINDOW, 2, **same),
            layers.DepthwiseConv2D(WINDOW, **same),
            layers.Conv2D(10, WINDOW, groups=2, dilation_rate=2, **same),
            layers.SpectralNormalization(layers.Conv2D(6, WINDOW, **same)),
            layers.Conv2DTranspose(5, WINDOW, 2, **same),
        ]
    )
    trainable = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]

    def apply(trainable, x):
        return model.stateless_call(trainable, others, x, training=True)[0]

    return apply, trainable


FRAMEWORKS = {
    "Linen": linen,
    "NNX": nnx_,
    "Equinox": equinox,
    "Haiku": haiku,
    "Keras": keras_,
}


@cache
def network(framework):
    """`(apply, params, [(kernel, options), ...])`, a stack's kernels one by one.

    No two kernels have the same sizes, so that each is found by its own.
    """
    apply, params = FRAMEWORKS[framework]()
    params = filled(params)
    kernels = []
    for name, (shape, options) in CONVOLUTIONS.items():
        if framework == "Keras" and name == "scanned":
            continue
        leaves = [x for x in jax.tree.leaves(params) if hasattr(x, "shape")]
        (leaf,) = [x for x in leaves if sorted(x.shape) == sorted(shape)]
        kernel = np.asarray(leaf)
        if framework == "Equinox":  # output channels first
            kernel = np.moveaxis(kernel, (-4, -3), (-1, -2))
        if kernel.shape != shape:  # as some have transposed and depthwise kernels
            kernel = kernel.swapaxes(-1, -2)
        assert kernel.shape == shape
        each = kernel if name == "scanned" else [kernel]
        kernels += [(one, options) for one in each]
    return apply, params, kernels
