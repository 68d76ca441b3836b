"""Capture of feature maps: which arrays of which layers, inside transformations too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from convsim_jax.flax import capture_feature_maps
from tests.library.flax_networks import (
    LinenBlock,
    LinenNet,
    LinenScanned,
    NNXScanned,
    X,
    close,
    expected_maps,
    filled,
    images,
    linen_variables,
    nnx_net,
)

# Flax normalizes with mixed dtypes and ranks.
pytestmark = pytest.mark.usefixtures("quick_compilation", "relaxed_jax")

NORMS = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]


def check_maps(result, expected):
    assert list(result) == list(expected)
    jax.tree.map(close, result, expected)


def captured(model, x=X):
    """Maps of a Linen model, its variables, and its output."""
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), x))
    maps = capture_feature_maps(model, x, variables=variables)
    return maps, variables, model.apply(variables, x)


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh])
def test_maps_before_and_after_the_activation(activation):
    variables = linen_variables(LinenNet())
    expected = expected_maps(variables, activation)
    options = {} if activation is jax.nn.relu else {"activation": activation}
    result = capture_feature_maps(LinenNet(), X, variables=variables, **options)
    check_maps(result, expected)
    check_maps(capture_feature_maps(nnx_net(), X, **options), expected)


def test_nnx_model_is_left_as_it_was():
    model = nnx_net()
    graph, state = nnx.split(model)
    state = nnx.to_pure_dict(state)
    capture_feature_maps(model, X)
    graph_after, state_after = nnx.split(model)
    assert graph_after == graph
    same = jax.tree.map(lambda a, b: (a == b).all(), nnx.to_pure_dict(state_after), state)
    assert jax.tree.all(same)
    assert not model.norm.use_running_average
    assert not model.dropout.deterministic
    assert type(model.stem) is nnx.Conv


# Inside transformations, and around them.


def test_linen_capture_is_traceable_over_seeds():
    model = LinenNet()
    variables = [linen_variables(model, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
    capture = jax.jit(
        jax.vmap(lambda v: capture_feature_maps(model, X, variables=v)), inline=True
    )
    result = capture(stacked)
    for seed, one in enumerate(variables):
        maps = jax.tree.map(lambda leaf, seed=seed: leaf[seed], result)
        jax.tree.map(close, maps, expected_maps(one))


def test_nnx_capture_is_traceable():
    result = nnx.jit(capture_feature_maps)(nnx_net(), X)
    jax.tree.map(close, result, expected_maps(linen_variables(LinenNet())))


@pytest.mark.parametrize("transform", [nn.remat, nn.jit, nnx.remat, nnx.jit])
def test_layers_inside_transformations(transform):
    variables = linen_variables(LinenNet())
    model, options = LinenNet(transform(LinenBlock)), {"variables": variables}
    if transform in (nnx.remat, nnx.jit):
        model, options = nnx_net(transform), {}
    for _ in range(2):  # the second time from the transformation's cache
        result = capture_feature_maps(model, X, **options)
        check_maps(result, expected_maps(variables))


@pytest.mark.parametrize("collections", ["params", True])
def test_scanned_linen_layers_have_an_entry_for_each_time(collections):
    maps, variables, _ = captured(LinenScanned(collections))
    assert list(maps) == ["layers/conv", "layers/conv#2"]
    x, kernels = X, variables["params"]["layers"]["conv"]
    for n, layer in enumerate(maps.values()):
        params = jax.tree.map(lambda leaf, n=n: leaf[n], kernels)
        x = nn.Conv(3, (3, 3)).apply({"params": params}, x)
        close(layer.before, x)


def test_scanned_nnx_layers_have_an_entry_for_each_time():
    model = NNXScanned(nnx.Rngs(0), 3)
    maps = capture_feature_maps(model, X)
    assert list(maps) == ["layers", "layers#2"]
    close(maps["layers#2"].before, model(X))


def test_linen_layers_inside_vmap_are_refused():
    model = nn.vmap(
        nn.Conv, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None,
        axis_size=2,
    )(4, (3, 3))  # fmt: skip
    with pytest.raises(ValueError, match=r"conv layer VmapConv .* runs inside vmap"):
        captured(model)


def test_linen_layers_inside_a_while_loop_are_refused():
    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = nn.Conv(3, (3, 3), name="conv")
            if self.is_initializing():
                return conv(x)

            def step(module, state):
                return state[0] + 1, conv(state[1])

            return nn.while_loop(lambda m, s: s[0] < 2, step, self, (0, x))[1]

    with pytest.raises(ValueError, match=r"maps of conv, call 1 cannot .* of the while"):
        captured(Loop())


def test_weight_norm():
    model = nn.Sequential([nn.WeightNorm(nn.Conv(4, (3, 3))), nn.LayerNorm()])
    maps, _, output = captured(model)
    (layer,) = maps.values()
    close(layer.before, output)


# Which layers, which arrays.


@pytest.mark.parametrize(
    ("norm", "by_keyword"), [*((norm, False) for norm in NORMS), ("LayerNorm", True)]
)
def test_linen_normalization_of_the_conv_output_comes_before(norm, by_keyword):
    options = {"use_running_average": True} if norm == "BatchNorm" else {}
    options |= {"num_groups": 2} if norm == "GroupNorm" else {}

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3))(x)
            layer = getattr(nn, norm)(**options)
            return layer(x=x) if by_keyword else layer(x)

    maps, _, output = captured(Model())
    close(maps["Conv_0"].before, output)


@pytest.mark.parametrize("norm", NORMS)
def test_nnx_normalization_of_the_conv_output_comes_before(norm):
    options = {"num_groups": 2} if norm == "GroupNorm" else {}
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Conv(3, 4, (3, 3), rngs=rngs), getattr(nnx, norm)(4, rngs=rngs, **options)
    )
    model.eval()
    maps = capture_feature_maps(model, X)
    close(maps["layers/0"].before, model(X))


class Inception(nn.Module):
    """Two convs, then their norms; a norm after ReLU, which is not one of a conv."""

    @nn.compact
    def __call__(self, x):
        a, b = nn.Conv(2, (3, 3), name="a")(x), nn.Conv(4, (1, 1), name="b")(x)
        a, b = nn.LayerNorm(name="norm_a")(a), nn.LayerNorm(name="norm_b")(b)
        c = nn.Conv(3, (3, 3), name="c")(nn.relu(jnp.concatenate([a, b], -1)))
        return a, b, c, nn.LayerNorm(name="norm_c")(nn.relu(c))


def test_each_norm_finds_its_conv():
    maps, _, outputs = captured(Inception())
    assert list(maps) == ["a", "b", "c"]
    for layer, output in zip(maps.values(), outputs, strict=False):
        close(layer.before, output)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv, norm = nn.Conv(3, (3, 3), name="conv"), nn.LayerNorm(name="norm")
        y = conv(x)
        z = conv(y)
        return norm(y), z


def test_a_layer_applied_twice_has_two_entries():
    maps, _, (first, second) = captured(Twice())
    assert list(maps) == ["conv", "conv#2"]
    close(maps["conv"].before, first)
    close(maps["conv#2"].before, second)


@pytest.mark.parametrize("wrap", [lambda function: function, nnx.jit])
def test_an_nnx_layer_applied_twice_has_two_entries(wrap):
    """Also where a function is traced once and called twice."""

    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
            self.norm = nnx.LayerNorm(3, rngs=rngs)
            self.same = self.norm

        def __call__(self, x):
            block = wrap(lambda model, x: model.same(model.conv(x)))
            return block(self, block(self, x))

    model = Twice(nnx.Rngs(0))
    maps = capture_feature_maps(model, X)
    assert list(maps) == ["conv", "conv#2"]
    close(maps["conv"].before, model.norm(model.conv(X)))
    close(maps["conv#2"].before, model(X))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(4, 3),
        nn.ConvLocal(4, (3, 3)),
        nn.ConvTranspose(4, (3, 3), strides=(2, 2)),
        nnx.Conv(3, 4, 3, rngs=nnx.Rngs(0)),
        nnx.ConvTranspose(3, 4, (3, 3), strides=2, rngs=nnx.Rngs(0)),
        type("OwnConv", (nnx.Conv,), {})(3, 4, (3, 3), rngs=nnx.Rngs(0)),
    ],
    ids=lambda layer: f"{type(layer).__module__}.{type(layer).__name__}",
)
def test_layers_of_every_kind_also_as_the_whole_model(layer):
    x = images(2, 6, 3) if np.size(layer.kernel_size) == 1 else X
    if isinstance(layer, nn.Module):
        maps, _, output = captured(layer, x)
    else:
        maps, output = capture_feature_maps(layer, x), layer(x)
    assert list(maps) == [type(layer).__name__]
    close(maps[type(layer).__name__].before, output)


@pytest.mark.parametrize(
    ("batch", "layer_type"), [((), nn.Conv), ((2, 3), nn.remat(nn.Conv))]
)
def test_any_number_of_batch_axes_becomes_one(batch, layer_type):
    layer, x = layer_type(4, (3, 3)), images(*batch, 6, 5, 3)
    maps, _, output = captured(layer, x)
    close(*(m.before for m in maps.values()), output.reshape(-1, 6, 5, 4))
