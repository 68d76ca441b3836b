"""`conv_layers` on programs written by hand, each with what it does to its kernel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

import convsim_jax as cs
from tests.library.kernel_cases import convolve

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)


def conv(x, kernel, *args, **options):
    return convolve(x, kernel.astype(x.dtype), *args, **options)


def layers_of(apply, *shapes, images=IMAGES):
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in zip("abc", shapes, strict=False)
    }
    return cs.conv_layers(apply, params, images)


def the_layer(apply, *shapes, **options):
    layers = layers_of(apply, *shapes, **options)
    assert not layers.left_out
    (layer,) = layers
    assert layer.path == "a"
    assert layer.leaf == shapes[0]
    return layer


def leaf_of(shape):
    """Every entry differs, so that an exchange of any two shows."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


# Which axis is which: the leaf, the kernel that it is by hand, and how that is applied.


def ensemble(params, x):
    return jax.vmap(conv)(jnp.stack([x, x]), params["a"])


def scanned(params, x):
    return lax.scan(lambda x, kernel: (conv(x, kernel), None), x, params["a"])[0]


READINGS = {
    "HWIO": ((3, 2, 4, 5), lambda p, x: conv(x, p["a"]), lambda w: w),
    "OIHW": (
        (5, 4, 3, 2),
        lambda p, x: conv(x, p["a"], spec="OIHW"),
        lambda w: w.transpose(2, 3, 1, 0),
    ),
    "HWOI": (
        (3, 2, 5, 4),
        lambda p, x: conv(x, jnp.flip(p["a"].swapaxes(2, 3), (0, 1))),
        lambda w: w.transpose(0, 1, 3, 2),
    ),
    "HWOO": (  # a depthwise kernel of Keras
        (3, 2, 4, 3),
        lambda p, x: conv(x, p["a"].reshape(3, 2, 1, 12), feature_group_count=4),
        lambda w: w.reshape(3, 2, 1, 12),
    ),
    "(HWI)O": (
        (24, 5),
        lambda p, x: conv(x, p["a"].reshape(3, 2, 4, 5)),
        lambda w: w.reshape(3, 2, 4, 5),
    ),
    "LHWIO": ((3, 3, 2, 4, 4), scanned, lambda w: w),
    "HLWIO": (
        (3, 2, 2, 4, 4),
        lambda p, x: conv(conv(x, p["a"][:, 0]), p["a"][:, 1]),
        lambda w: w.swapaxes(0, 1),
    ),
    "OHWIO": (
        (2, 3, 2, 4, 5),
        ensemble,
        lambda w: w.transpose(1, 2, 3, 0, 4).reshape(3, 2, 4, 10),
    ),
}


@pytest.mark.parametrize("layout", READINGS)
def test_reads_and_writes_the_kernel(layout):
    shape, apply, by_hand = READINGS[layout]
    layer = the_layer(apply, shape)
    leaf = leaf_of(shape)
    expected = by_hand(leaf)
    assert layer.layout == layout
    assert (*layer.stack, *layer.kernel) == expected.shape
    np.testing.assert_array_equal(layer.read(leaf), expected)
    np.testing.assert_array_equal(layer.write(layer.read(leaf)), leaf)


def test_axes_of_size_one_are_named_in_order():
    assert the_layer(lambda p, x: conv(x, p["a"]), (1, 1, 4, 5)).layout == "HWIO"
    depthwise = partial(conv, spec="OIHW", feature_group_count=4)
    assert the_layer(lambda p, x: depthwise(x, p["a"]), (8, 1, 3, 3)).layout == "OIHW"


@pytest.mark.parametrize("window", [(3,), (3, 2, 1)])
def test_windows_of_one_and_three_axes(window):
    def apply(params, x):
        return lax.conv(x, params["a"], (1,) * len(window), "SAME")

    images = jax.ShapeDtypeStruct((2, 4, *[8] * len(window)), jnp.float32)
    layer = the_layer(apply, (5, 4, *window), images=images)
    assert layer.kernel == (*window, 4, 5)
    assert layer.inputs == (2, *[8] * len(window), 4)


# What is done with it.


def test_groups_strides_dilation_and_shapes():
    options = {"strides": (2, 1), "rhs_dilation": (1, 3), "feature_group_count": 2}

    def apply(p, x):
        return conv(x, p["a"], **options)

    layer = the_layer(apply, (3, 2, 2, 6))
    assert layer.feature_group_count == 2
    assert (layer.strides, layer.dilation) == ((2, 1), (1, 3))
    assert not layer.transposed
    assert (layer.inputs, layer.outputs) == ((2, 8, 8, 4), (2, 4, 8, 6))
    assert layer.applications == 1
    assert hash(layer) == hash(the_layer(apply, (3, 2, 2, 6)))


def test_transposed():
    def apply(p, x):
        return lax.conv_transpose(x, p["a"], (2, 3), "SAME")

    layer = the_layer(apply, (3, 3, 4, 5))
    assert (layer.transposed, layer.strides) == (True, (2, 3))
    assert layer.outputs == (2, 16, 24, 5)


def test_one_entry_for_each_way_a_leaf_is_read():
    def tied(params, x):
        x = conv(conv(x, params["a"], (2, 2)), params["b"])
        x = conv(x, params["b"])
        return lax.conv_transpose(x, params["a"], (2, 2), "SAME", transpose_kernel=True)

    layers = layers_of(tied, (3, 3, 4, 5), (1, 1, 5, 5))
    assert [(x.path, x.transposed, x.applications) for x in layers] == [
        ("a", False, 1),
        ("b", False, 2),
        ("a", True, 1),
    ]


# Through what the program is made of.


def custom(derive, rule):
    """A function with a derivative of its own."""

    def apply(params, x):
        function = derive(lambda kernel, x: conv(x, kernel))
        rule(function)
        return function(params["a"], x)

    return apply


def in_shard_map(params, x):
    mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Auto,))
    batch = PartitionSpec("batch")
    specs = {"in_specs": (PartitionSpec(), batch), "out_specs": batch}
    return jax.shard_map(lambda k, x: conv(x, k), mesh=mesh, **specs)(params["a"], x)


def in_carry(params, x):
    def step(carry, _):
        x, kernel = carry
        return (conv(x, kernel), kernel), None

    return lax.scan(step, (x, params["a"]), length=5)[0][0]


def plain(p, x):
    return conv(x, p["a"])


THROUGH = {
    "jit": (jax.jit(plain), 1),
    "remat": (jax.checkpoint(plain), 1),
    "called twice": (lambda p, x: jax.jit(conv)(jax.jit(conv)(x, p["a"]), p["a"]), 2),
    "scan": (lambda p, x: lax.scan(lambda x, _: (plain(p, x), x), x, length=5)[0], 5),
    "carry": (in_carry, 5),
    "while": (lambda p, x: lax.while_loop(lambda x: True, lambda x: plain(p, x), x), 1),
    "cond": (lambda p, x: lax.cond(x.sum() > 0, partial(plain, p), lambda x: x, x), 1),
    "custom_jvp": (custom(jax.custom_jvp, lambda f: f.defjvp(lambda p, t: (p, t))), 1),
    "custom_vjp": (
        custom(jax.custom_vjp, lambda f: f.defvjp(lambda *a: (f(*a), a), lambda r, g: r)),
        1,
    ),
    "shard_map": (in_shard_map, 1),
    "vmap": (lambda p, x: jax.vmap(lambda x: plain(p, x[None])[0])(x), 1),
}


@pytest.mark.parametrize("name", THROUGH)
def test_found_through(name):
    apply, count = THROUGH[name]
    layer = the_layer(apply, (3, 3, 4, 4))
    assert layer.layout == "HWIO"
    assert layer.applications == count


# Through what is done to the kernel.


def standardized(w):
    w = w - w.mean((0, 1, 2), keepdims=True)
    return w / jnp.sqrt(w.var((0, 1, 2), keepdims=True) + jnp.float32(1e-6))


def spectral(w):
    flat = w.reshape(-1, w.shape[-1])
    vector = jnp.ones((1, w.shape[-1])) @ flat.T
    return (flat / jnp.linalg.norm(vector)).reshape(w.shape)


def weight_norm(w, scale):
    square = jnp.square(w).sum((0, 1, 2), keepdims=True)
    return w * lax.rsqrt(square) * scale.reshape(1, 1, 1, -1)


FOLLOWED = {
    "cast": lambda p: p["a"].astype(jnp.bfloat16),
    "tanh": lambda p: jnp.tanh(p["a"]),
    "standardization": lambda p: standardized(p["a"]),
    "weight normalization": lambda p: weight_norm(p["a"], p["b"]),
    "spectral normalization": lambda p: spectral(p["a"]),
    "a mask": lambda p: jnp.where(p["a"] > 0.1, p["a"], jnp.zeros_like(p["a"])),
    "a low-rank update": lambda p: p["a"] + (p["c"] @ p["c"][:5].T).reshape(3, 3, 4, 5),
    "a smaller kernel, padded": lambda p: (
        p["a"]
        + jnp.pad(p["c"][:10].reshape(1, 1, 4, 5), [(1, 1), (1, 1), (0, 0), (0, 0)])
    ),
    "a loop": lambda p: lax.scan(lambda w, _: (w / 2, None), p["a"], length=3)[0],
    "a barrier": lambda p: lax.optimization_barrier((p["b"], p["a"]))[1],
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed_through(name):
    kernel = FOLLOWED[name]
    layer = the_layer(lambda p, x: conv(x, kernel(p)), (3, 3, 4, 5), (5,), (36, 2))
    assert layer.layout == "HWIO"


LEFT_OUT = {
    "two whole leaves": lambda p: p["a"] + p["b"],
    "itself transposed": lambda p: p["a"] + p["a"].swapaxes(0, 1),
    "a product": lambda p: (p["a"].T.reshape(4, 36) @ p["b"].reshape(36, 4))[None, None],
    "two that a loop exchanges": lambda p: lax.fori_loop(
        0, 3, lambda _, pair: pair[::-1], (p["a"], p["b"])
    )[0],
    "two leaves in a row": lambda p: jnp.concatenate([p["a"], p["b"]], 3),
    "a part of an axis": lambda p: p["a"][..., :2],
    "one of a few numbers": lambda p: jnp.ones((3, 3, 4, 4)) * p["a"][0, 0, 0, 0],
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_kernels_that_are_no_leaf_are_left_out_and_the_table_says_so(name):
    def apply(params, x):
        return conv(conv(x, params["c"]), LEFT_OUT[name](params))

    shapes = (3, 3, 4, 4), (3, 3, 4, 4), (1, 1, 4, 4)
    layers = layers_of(apply, *shapes)
    assert [layer.path for layer in layers] == ["c"]
    (reason,) = layers.left_out
    assert "2x8x8x4" in reason
    assert reason in str(layers).splitlines()[-1]
    with pytest.raises(ValueError, match=r"apply has no convolution.*2x8x8x4"):
        layers_of(lambda p, x: conv(x, LEFT_OUT[name](p)), *shapes)


# As an object, and as text.


def test_arguments_are_passed_as_they_are_and_nothing_is_computed():
    def apply(params, x, *, train, mode):
        assert (train, mode) == (True, "fast")
        jax.debug.callback(lambda: pytest.fail("computed"))
        return conv(x, params["a"])

    params = {"a": jnp.ones((3, 3, 4, 5)), "activation": jax.nn.relu, "none": None}
    layers = cs.conv_layers(
        apply, params, jnp.ones(IMAGES.shape), train=True, mode="fast"
    )
    assert [layer.path for layer in layers] == ["a"]


def test_static_under_jit():
    layers = layers_of(scanned, (3, 3, 2, 4, 4))

    @partial(jax.jit, static_argnums=0)
    def norms(layers, leaf):
        return jnp.sqrt(jnp.square(layers.layers[0].read(leaf)).sum((1, 2, 3, 4)))

    assert norms(layers, jnp.ones((3, 3, 2, 4, 4))).shape == (3,)
    assert layers == layers_of(scanned, (3, 3, 2, 4, 4))


def test_prints_as_a_table():
    def apply(params, x):
        x = conv(x, params["a"], (2, 1), rhs_dilation=(1, 3), feature_group_count=2)
        return scanned({"a": params["b"]}, x)

    text = str(layers_of(apply, (3, 2, 2, 6), (5, 3, 3, 6, 6)))
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "kernel layout stack shape groups stride dilation times in out",
        "a HWIO - 3x2x2x6 2 2x1 1x3 1 2x8x8x4 2x4x8x6",
        "b LHWIO 5 3x3x6x6 1 1 1 5 2x4x8x6 2x4x8x6",
    ]


def test_dilated_input_with_strides_is_left_out():
    def apply(params, x):
        options = {"lhs_dilation": (3, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return lax.conv_general_dilated(x, params["a"], (2, 2), [(1, 1)] * 2, **options)

    with pytest.raises(ValueError, match=r"2x8x8x4.*strides as well"):
        layers_of(apply, (3, 3, 4, 5))
