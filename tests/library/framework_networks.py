"""Small networks, each written once, in five frameworks: with what they do, by hand.

A network is a function of a builder and an image. The builder makes the framework's own
layers, in order, and notes what each is asked to do: `builder.asked`.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import linen as nn
from flax import nnx

SIZE, CHANNELS, BATCH = 8, 4, 2


# The networks.


def resnet(b, x):
    x = b.conv(x, 6, 3)
    y = b.conv(b.conv(x, 6, 3, strides=2), 6, 3)
    return b.add(b.conv(x, 6, 1, strides=2), y)


def mobilenet(b, x):
    x = b.conv(b.conv(x, 6, 3, strides=2), 6, 3, groups=6)
    return b.conv(b.conv(x, 8, 1), 8, 3, groups=8, strides=2)


def efficientnet(b, x):
    y = b.conv(b.conv(x, 12, 1), 12, 5, groups=12)
    y = b.gate(y, b.conv(b.conv(b.pool(y), 2, 1), 12, 1))
    return b.add(x, b.conv(y, CHANNELS, 1))


def convnext(b, x):
    x = b.conv(x, 6, 4, strides=4)
    return b.add(x, b.conv(b.conv(b.conv(x, 6, 7, groups=6), 12, 1), 6, 1))


def grouped(b, x):
    return b.conv(b.conv(x, 8, 3, groups=2), 12, 3, groups=4)


def strided(b, x):
    return b.conv(b.conv(x, 5, 3, strides=2, dilation=1), 6, 3, dilation=2)


def transposed(b, x):
    return b.conv_transpose(b.conv(x, 3, 3, strides=2), 5, 3, strides=2)


def scanned(b, x):
    return b.scan(b.conv(x, 4, 3), 3, 3)


def weight_normed(b, x):
    return b.normed(b.conv(x, 5, 3), 6, 3)


NETWORKS = [
    resnet,
    mobilenet,
    efficientnet,
    convnext,
    grouped,
    strided,
    transposed,
    scanned,
    weight_normed,
]


# The frameworks: each makes `apply(params, images)` and params, and finds the kernels.


class Builder:
    """Runs a network and notes what is asked of each layer."""

    channels_axis = -1

    def __init__(self):
        self.asked = []

    def note(self, **asked):
        self.asked.append({"groups": 1, "strides": 1, "dilation": 1} | asked)
        return f"layer_{len(self.asked) - 1}"

    def conv(self, x, features, window, *, groups=1, strides=1, dilation=1):
        name = self.note(groups=groups, strides=strides, dilation=dilation)
        return self.layer(name, x, features, window, groups, strides, dilation)

    def conv_transpose(self, x, features, window, *, strides):
        name = self.note(strides=strides, transposed=True)
        return self.transposed_layer(name, x, features, window, strides)

    def scan(self, x, window, length):
        return self.scanned_layers(self.note(stack=length), x, window, length)

    def normed(self, x, features, window):
        return self.normed_layer(self.note(), x, features, window)

    def add(self, a, b):
        return a + b

    def gate(self, a, b):
        return a * b

    def pool(self, x):
        axes = [axis for axis in range(x.ndim) if axis != self.channels_axis % x.ndim]
        return x.mean(axes[-2:], keepdims=True)


class Linen(Builder):
    def layer(self, name, x, features, window, groups, strides, dilation):
        return nn.Conv(
            features,
            (window, window),
            strides,
            feature_group_count=groups,
            kernel_dilation=dilation,
            name=name,
        )(x)

    def transposed_layer(self, name, x, features, window, strides):
        window, strides = (window, window), (strides, strides)
        return nn.ConvTranspose(
            features, window, strides, transpose_kernel=True, name=name
        )(x)

    def scanned_layers(self, name, x, window, length):
        class Body(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.Conv(x.shape[-1], (window, window), name="conv")(x), None

        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.scan(Body, **axes, length=length)(name=name)(x, None)[0]

    def normed_layer(self, name, x, features, window):
        return nn.WeightNorm(nn.Conv(features, (window, window), name=name))(x)

    def make(self, network, x):
        builder = self

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                builder.asked = []
                return network(builder, x)

        variables = Net().init(jax.random.key(0), x)
        apply = lambda params, x: Net().apply({"params": params}, x)  # noqa: E731
        return apply, variables["params"]

    def kernel(self, params, number, asked):
        layer = params[f"layer_{number}"]
        kernel = (layer["conv"] if "stack" in asked else layer)["kernel"]
        return kernel.swapaxes(-1, -2) if asked.get("transposed") else kernel


class Haiku(Builder):
    def layer(self, name, x, features, window, groups, strides, dilation):
        return hk.Conv2D(
            features, window, strides, dilation, feature_group_count=groups, name=name
        )(x)

    def transposed_layer(self, name, x, features, window, strides):
        return hk.Conv2DTranspose(features, window, strides, name=name)(x)

    def scanned_layers(self, name, x, window, length):
        features = x.shape[-1]
        stack = hk.experimental.layer_stack(length, name=name)
        return stack(lambda x: hk.Conv2D(features, window, name="conv")(x))(x)

    def normed_layer(self, name, x, features, window):
        shape = (window, window, x.shape[-1], features)
        kernel = hk.get_parameter(name, shape, init=hk.initializers.RandomNormal())
        norm = jnp.sqrt(jnp.square(kernel).sum((0, 1, 2), keepdims=True))
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel / norm, (1, 1), "SAME", dimension_numbers=dimensions
        )

    def make(self, network, x):
        def forward(x):
            self.asked = []
            return network(self, x)

        net = hk.without_apply_rng(hk.transform(forward))
        return net.apply, net.init(jax.random.key(0), x)

    def kernel(self, params, number, asked):
        (kernel,) = (
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if f"layer_{number}" in str(path) and leaf.ndim >= 4
        )
        return kernel.swapaxes(-1, -2) if asked.get("transposed") else kernel


class Keras(Builder):
    def layer(self, name, x, features, window, groups, strides, dilation):
        options = {"strides": strides, "dilation_rate": dilation, "padding": "same"}
        if groups == x.shape[-1] == features and groups > 1:
            return keras.layers.DepthwiseConv2D(window, name=name, **options)(x)
        return keras.layers.Conv2D(features, window, groups=groups, name=name, **options)(
            x
        )

    def transposed_layer(self, name, x, features, window, strides):
        return keras.layers.Conv2DTranspose(features, window, strides, "same", name=name)(
            x
        )

    def scanned_layers(self, name, x, window, length):
        class Stack(keras.layers.Layer):
            def build(self, shape):
                C = shape[-1]
                self.stack = self.add_weight(shape=(length, window, window, C, C))

            def call(self, x):
                def step(x, kernel):
                    return keras.ops.conv(x, kernel, padding="same"), None

                stack = keras.ops.convert_to_tensor(self.stack)
                return keras.ops.scan(step, x, stack)[0]

        return Stack(name=name)(x)

    def normed_layer(self, name, x, features, window):
        layer = keras.layers.Conv2D(features, window, padding="same", name=name)
        return keras.layers.SpectralNormalization(layer)(x)

    def pool(self, x):
        return keras.layers.GlobalAveragePooling2D(keepdims=True)(x)

    def make(self, network, x):
        keras.utils.set_random_seed(0)
        images = keras.Input(x.shape[1:])
        self.model = keras.Model(images, network(self, images))
        trainable, others = (
            [variable.value for variable in variables]
            for variables in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
            )
        )

        def apply(trainable, x):
            return self.model.stateless_call(trainable, others, x, training=True)[0]

        return apply, trainable

    def kernel(self, params, number, asked):
        (kernel,) = (
            leaf
            for variable, leaf in zip(self.model.trainable_variables, params, strict=True)
            if f"layer_{number}/" in variable.path and leaf.ndim >= 4
        )
        if asked.get("transposed"):
            return kernel.swapaxes(-1, -2)
        depthwise = asked["groups"] == kernel.shape[-2] and kernel.shape[-1] == 1
        return kernel.swapaxes(-1, -2) if depthwise else kernel


class Listed(Builder):
    """For frameworks whose layers are made before they are run."""

    layers = None

    def made(self, name, make):
        """The layer of this name, which is made the first time."""
        if name not in self.layers:
            self.layers[name] = make()
        return self.layers[name]


class Nnx(Listed):
    def layer(self, name, x, features, window, groups, strides, dilation):
        return self.made(
            name,
            lambda: nnx.Conv(
                x.shape[-1],
                features,
                (window, window),
                strides,
                feature_group_count=groups,
                kernel_dilation=dilation,
                rngs=nnx.Rngs(0),
            ),
        )(x)

    def transposed_layer(self, name, x, features, window, strides):
        window, strides = (window, window), (strides, strides)
        make = lambda: nnx.ConvTranspose(  # noqa: E731
            x.shape[-1], features, window, strides, rngs=nnx.Rngs(0)
        )
        return self.made(name, make)(x)

    def scanned_layers(self, name, x, window, length):
        C = x.shape[-1]

        @nnx.split_rngs(splits=length)
        @nnx.vmap
        def make(rngs):
            return nnx.Conv(C, C, (window, window), rngs=rngs)

        layers = self.made(name, lambda: make(nnx.Rngs(0)))
        return nnx.scan(
            lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
        )(x, layers)

    def normed_layer(self, name, x, features, window):
        def make():
            conv = nnx.Conv(x.shape[-1], features, (window, window), rngs=nnx.Rngs(0))
            return nnx.WeightNorm(conv, rngs=nnx.Rngs(0))

        return self.made(name, make)(x)

    def make(self, network, x):
        self.layers = nnx.Dict()
        network(self, x)
        model = self.layers

        def apply(model, x):
            self.layers, self.asked = model, []
            return network(self, x)

        return apply, model

    def kernel(self, params, number, asked):
        layer = params[f"layer_{number}"]
        layer = getattr(layer, "layer_instance", layer)
        return layer.kernel[...]


class Equinox(Listed):
    channels_axis = 0

    def layer(self, name, x, features, window, groups, strides, dilation):
        return self.made(
            name,
            lambda: eqx.nn.Conv2d(
                x.shape[0],
                features,
                window,
                strides,
                "SAME",
                dilation,
                groups,
                key=jax.random.key(0),
            ),
        )(x)

    def transposed_layer(self, name, x, features, window, strides):
        make = lambda: eqx.nn.ConvTranspose2d(  # noqa: E731
            x.shape[0], features, window, strides, padding="SAME", key=jax.random.key(0)
        )
        return self.made(name, make)(x)

    def scanned_layers(self, name, x, window, length):
        C = x.shape[0]

        def make():
            keys = jax.random.split(jax.random.key(0), length)
            one = lambda key: eqx.nn.Conv2d(C, C, window, padding="SAME", key=key)  # noqa: E731
            return eqx.filter_vmap(one)(keys)

        arrays, static = eqx.partition(self.made(name, make), eqx.is_array)

        def step(x, arrays):
            return eqx.combine(arrays, static)(x), None

        return jax.lax.scan(step, x, arrays)[0]

    def normed_layer(self, name, x, features, window):
        def make():
            conv = eqx.nn.Conv2d(
                x.shape[0], features, window, padding="SAME", key=jax.random.key(0)
            )
            return eqx.nn.WeightNorm(conv, axis=0)

        return self.made(name, make)(x)

    def make(self, network, x):
        self.layers = {}
        network(self, x[0].transpose(2, 0, 1))
        model = self.layers

        def apply(model, x):
            self.layers, self.asked = model, []
            return jax.vmap(lambda x: network(self, x))(x.transpose(0, 3, 1, 2))

        return apply, model

    def kernel(self, params, number, asked):
        layer = params[f"layer_{number}"]
        weight = getattr(layer, "layer", layer).weight
        order = (2, 3, 1, 0) if "stack" not in asked else (0, 3, 4, 2, 1)
        return weight.transpose(order)


FRAMEWORKS = {
    "Linen": Linen,
    "NNX": Nnx,
    "Equinox": Equinox,
    "Haiku": Haiku,
    "Keras": Keras,
}


def make(framework, network):
    """`(apply, params, images, [(kernel, asked), ...])`, kernels `(*window, C, M)`."""
    builder = FRAMEWORKS[framework]()
    images = jnp.ones((BATCH, SIZE, SIZE, CHANNELS))
    apply, params = builder.make(network, images)
    kernels = []
    for number, asked in enumerate(builder.asked):
        kernel = np.asarray(builder.kernel(params, number, asked))
        kernels += [(k, asked) for k in (kernel if "stack" in asked else [kernel])]
    return apply, params, images, kernels
