"""Small networks, each written once, in five frameworks: with what they do, by hand.

A network is a function of a builder and an image. The builder makes the framework's own
layers, in order, and notes what each is asked to do: `builder.asked`. Networks are traced
to learn their parameters' shapes, and never run.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from functools import cache, partial

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import linen as nn
from flax import nnx

IMAGES = jnp.ones((2, 8, 8, 4))


def convolutions(b, x):
    """Strides, a depthwise conv, a dilated one, a gate with groups, and a shortcut."""
    x = b.conv(x, 6, 3, strides=2)
    y = b.conv(b.conv(x, 6, 3, groups=6), 6, 3, dilation=2)
    y = b.gate(y, b.conv(b.pool(y), 6, 1, groups=2))
    return b.add(b.conv(x, 6, 1), y)


def transposed(b, x):
    return b.transposed(b.conv(x, 3, 3, strides=2), 5, 3, strides=2)


def scanned(b, x):
    return b.scanned(b.conv(x, 4, 3), 3, 3)


def normed(b, x):
    return b.normed(b.conv(x, 5, 3), 6, 3)


def filled(tree):
    """Numbers in the place of shapes."""
    random = np.random.default_rng(0)

    def fill(leaf):
        if not hasattr(leaf, "dtype"):
            return leaf
        return jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(fill, tree)


class Builder:
    """Notes what is asked of each layer; `make` gives `apply(params, images)`, params."""

    def note(self, **asked):
        self.asked.append({"groups": 1, "strides": 1, "dilation": 1} | asked)
        return f"layer_{len(self.asked) - 1}"

    def conv(self, x, features, window, *, groups=1, strides=1, dilation=1):
        name = self.note(groups=groups, strides=strides, dilation=dilation)
        return self.make_conv(name, x, features, window, groups, strides, dilation)

    def transposed(self, x, features, window, *, strides):
        name = self.note(strides=strides, transposed=True)
        return self.make_transposed(name, x, features, window, strides)

    def scanned(self, x, window, length):
        return self.make_scanned(self.note(stack=length), x, window, length)

    def normed(self, x, features, window):
        return self.make_normed(self.note(), x, features, window)

    def add(self, a, b):
        return a + b

    def gate(self, a, b):
        return a * b

    def pool(self, x):
        return x.mean((-3, -2), keepdims=True)

    def run(self, network, x):
        self.asked = []
        return network(self, x)

    def named(self, params):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        arrays = [(path, leaf) for path, leaf in leaves if hasattr(leaf, "ndim")]
        return {jax.tree_util.keystr(path): leaf for path, leaf in arrays}

    def as_kernel(self, leaf, asked):
        return leaf.swapaxes(-1, -2) if asked.get("transposed") else leaf


class Linen(Builder):
    def make_conv(self, name, x, features, window, groups, strides, dilation):
        options = {"feature_group_count": groups, "kernel_dilation": dilation}
        return nn.Conv(features, (window, window), strides, **options, name=name)(x)

    def make_transposed(self, name, x, features, window, strides):
        sizes = (window, window), (strides, strides)
        return nn.ConvTranspose(features, *sizes, transpose_kernel=True, name=name)(x)

    def make_scanned(self, name, x, window, length):
        class Body(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.Conv(x.shape[-1], (window, window), name="conv")(x), None

        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.scan(Body, **axes, length=length)(name=name)(x, None)[0]

    def make_normed(self, name, x, features, window):
        return nn.WeightNorm(nn.Conv(features, (window, window), name=name))(x)

    def make(self, network):
        builder = self

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return builder.run(network, x)

        params = jax.eval_shape(Net().init, jax.random.key(0), IMAGES)["params"]
        return lambda params, x: Net().apply({"params": params}, x), filled(params)


class Haiku(Builder):
    def make_conv(self, name, x, features, window, groups, strides, dilation):
        options = {"feature_group_count": groups, "name": name}
        return hk.Conv2D(features, window, strides, dilation, **options)(x)

    def make_transposed(self, name, x, features, window, strides):
        return hk.Conv2DTranspose(features, window, strides, name=name)(x)

    def make_scanned(self, name, x, window, length):
        stack = hk.experimental.layer_stack(length, name=name)
        return stack(lambda x: hk.Conv2D(x.shape[-1], window, name="conv")(x))(x)

    def make(self, network):
        net = hk.without_apply_rng(hk.transform(partial(self.run, network)))
        return net.apply, filled(jax.eval_shape(net.init, jax.random.key(0), IMAGES))


class Keras(Builder):
    def make_conv(self, name, x, features, window, groups, strides, dilation):
        options = {"strides": strides, "dilation_rate": dilation, "padding": "same"}
        if groups == x.shape[-1] == features:
            return keras.layers.DepthwiseConv2D(window, name=name, **options)(x)
        options |= {"groups": groups, "name": name}
        return keras.layers.Conv2D(features, window, **options)(x)

    def make_transposed(self, name, x, features, window, strides):
        options = {"padding": "same", "name": name}
        return keras.layers.Conv2DTranspose(features, window, strides, **options)(x)

    def make_normed(self, name, x, features, window):
        layer = keras.layers.Conv2D(features, window, padding="same", name=name)
        return keras.layers.SpectralNormalization(layer)(x)

    def pool(self, x):
        return keras.layers.GlobalAveragePooling2D(keepdims=True)(x)

    def make(self, network):
        images = keras.Input(IMAGES.shape[1:])
        self.model = keras.Model(images, self.run(network, images))
        others = [variable.value for variable in self.model.non_trainable_variables]

        def apply(trainable, x):
            return self.model.stateless_call(trainable, others, x, training=True)[0]

        return apply, filled([v.value for v in self.model.trainable_variables])

    def named(self, params):
        paths = [variable.path for variable in self.model.trainable_variables]
        return dict(zip(paths, params, strict=True))

    def as_kernel(self, leaf, asked):
        depthwise = asked["groups"] == leaf.shape[-2] and leaf.shape[-1] == 1
        swapped = depthwise or asked.get("transposed")
        return leaf.swapaxes(-1, -2) if swapped else leaf


class Listed(Builder):
    """For frameworks whose layers are made before they are run."""

    def made(self, name, make, *arguments, **options):
        """The layer of this name, which is made the first time."""
        if name not in self.layers:
            self.layers[name] = make(*arguments, **options)
        return self.layers[name]

    def run_with(self, network, layers, x):
        self.layers = layers
        return self.run(network, x)

    def new(self, network, layers):
        self.run_with(network, layers, IMAGES)
        return self.layers


class Nnx(Listed):
    def make_conv(self, name, x, features, window, groups, strides, dilation):
        options = {"feature_group_count": groups, "kernel_dilation": dilation}
        sizes = x.shape[-1], features, (window, window), strides
        return self.made(name, nnx.Conv, *sizes, **options, rngs=nnx.Rngs(0))(x)

    def make_transposed(self, name, x, features, window, strides):
        sizes = x.shape[-1], features, (window, window), (strides, strides)
        return self.made(name, nnx.ConvTranspose, *sizes, rngs=nnx.Rngs(0))(x)

    def make_scanned(self, name, x, window, length):
        C = x.shape[-1]

        @nnx.split_rngs(splits=length)
        @nnx.vmap
        def make(rngs):
            return nnx.Conv(C, C, (window, window), rngs=rngs)

        axes = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry}
        layers = self.made(name, make, nnx.Rngs(0))
        return nnx.scan(lambda x, layer: layer(x), **axes)(x, layers)

    def make_normed(self, name, x, features, window):
        def make(rngs):
            conv = nnx.Conv(x.shape[-1], features, (window, window), rngs=rngs)
            return nnx.WeightNorm(conv, rngs=rngs)

        return self.made(name, make, nnx.Rngs(0))(x)

    def make(self, network):
        abstract = nnx.eval_shape(lambda: self.new(network, nnx.Dict()))
        graph, state = nnx.split(abstract)
        return partial(self.run_with, network), nnx.merge(graph, filled(state))

    def as_kernel(self, leaf, asked):
        return leaf


class Equinox(Listed):
    def make_conv(self, name, x, features, window, groups, strides, dilation):
        options = {"padding": "SAME", "groups": groups, "key": jax.random.key(0)}
        sizes = x.shape[0], features, window, strides
        return self.made(name, eqx.nn.Conv2d, *sizes, dilation=dilation, **options)(x)

    def make_transposed(self, name, x, features, window, strides):
        options = {"padding": "SAME", "key": jax.random.key(0)}
        sizes = x.shape[0], features, window, strides
        return self.made(name, eqx.nn.ConvTranspose2d, *sizes, **options)(x)

    def make_scanned(self, name, x, window, length):
        C = x.shape[0]

        @eqx.filter_vmap
        def make(key):
            return eqx.nn.Conv2d(C, C, window, padding="SAME", key=key)

        layers = self.made(name, make, jax.random.split(jax.random.key(0), length))
        arrays, static = eqx.partition(layers, eqx.is_array)
        step = lambda x, arrays: (eqx.combine(arrays, static)(x), None)  # noqa: E731
        return jax.lax.scan(step, x, arrays)[0]

    def make_normed(self, name, x, features, window):
        def make(**options):
            conv = eqx.nn.Conv2d(x.shape[0], features, window, **options)
            return eqx.nn.WeightNorm(conv, axis=0)

        return self.made(name, make, padding="SAME", key=jax.random.key(0))(x)

    def pool(self, x):
        return x.mean((1, 2), keepdims=True)

    def run_with(self, network, layers, x):
        self.layers = layers
        return jax.vmap(partial(self.run, network))(x.transpose(0, 3, 1, 2))

    def make(self, network):
        abstract = eqx.filter_eval_shape(lambda: self.new(network, {}))
        return partial(self.run_with, network), filled(abstract)

    def as_kernel(self, leaf, asked):
        return jnp.moveaxis(leaf, (-4, -3), (-1, -2))


FRAMEWORKS = {
    "Linen": Linen,
    "NNX": Nnx,
    "Equinox": Equinox,
    "Haiku": Haiku,
    "Keras": Keras,
}
CASES = [
    (framework, network)
    for network in (convolutions, transposed, scanned, normed)
    for framework, builder in FRAMEWORKS.items()
    if hasattr(builder, f"make_{network.__name__}") or network is convolutions
]


@cache
def make(framework, network):
    """`(apply, params, [(kernel, asked), ...])`, kernels `(*window, C, M)`."""
    builder = FRAMEWORKS[framework]()
    apply, params = builder.make(network)
    kernels = []
    for number, asked in enumerate(builder.asked):
        leaves = [x for p, x in builder.named(params).items() if f"layer_{number}" in p]
        kernel = builder.as_kernel(max(leaves, key=jnp.ndim), asked)
        kernels += [(k, asked) for k in (kernel if "stack" in asked else [kernel])]
    return apply, params, kernels
