"""Feature maps of Flax models: which arrays of which layers, and the report of them."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import convsim_jax as cs
from convsim_jax.flax import capture_feature_maps, feature_map_report
from tests.library import oracle
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
pytestmark = pytest.mark.usefixtures("relaxed_jax")


def check_maps(result, expected):
    assert list(result) == list(expected)
    jax.tree.map(close, result, expected)


def captured(model, x=X):
    """Maps before the activation, and what the model returns."""
    if isinstance(model, nnx.Module):
        model.eval()
        maps, output = capture_feature_maps(model, x), model(x)
    else:
        variables = filled(jax.eval_shape(model.init, jax.random.key(0), x))
        maps = capture_feature_maps(model, x, variables=variables)
        output = model.apply(variables, x)
    return {path: layer.before for path, layer in maps.items()}, output


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
    capture_feature_maps(model, X)
    graph_after, state_after = nnx.split(model)
    assert graph_after == graph
    states = map(nnx.to_pure_dict, (state, state_after))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), *states))
    assert not model.norm.use_running_average
    assert not model.dropout.deterministic
    assert type(model.stem) is nnx.Conv


# Evaluation mode.


def model_with(mode):
    """Linen and NNX models that scale their conv's output by what `mode` is."""
    namespace = {"nn": nn, "nnx": nnx}
    exec(
        f"def linen(self, x, *, {mode}): return nn.Conv(2, (1, 1))(x * (1 + {mode}))\n"
        f"def nnx_(self, x, {mode}=None): return self.conv(x * (1 + {mode}))\n"
        "def init(self): self.conv = nnx.Conv(3, 2, (1, 1), rngs=nnx.Rngs(0))\n",
        namespace,
    )
    linen = type("Linen", (nn.Module,), {"__call__": nn.compact(namespace["linen"])})
    methods = {"__init__": namespace["init"], "__call__": namespace["nnx_"]}
    return linen(), type("NNX", (nnx.Module,), methods)()


@pytest.mark.parametrize(
    ("mode", "evaluation"),
    [
        ("train", False),
        ("training", False),
        ("is_training", False),
        ("deterministic", True),
        ("use_running_average", True),
    ],
)
def test_mode_is_passed_where_the_model_takes_it(mode, evaluation):
    linen, nnx_model = model_with(mode)
    variables = linen.init(jax.random.key(0), X, **{mode: evaluation})
    for given in ({}, {mode: not evaluation}):
        value = given.get(mode, evaluation)
        maps = capture_feature_maps(linen, X, variables=variables, **given)
        close(maps["Conv_0"].before, linen.apply(variables, X, **{mode: value}))
        maps = capture_feature_maps(nnx_model, X, **given)
        close(maps["conv"].before, nnx_model(X, value))


def test_training_mode_is_an_error():
    model = LinenNet()
    with pytest.raises(ValueError, match=r"LinenNet runs in training .*train=False"):
        capture_feature_maps(model, X, variables=linen_variables(model), train=True)
    model = nn.Sequential([nn.Conv(4, (3, 3)), nn.Dropout(0.5, deterministic=False)])
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), X))
    with pytest.raises(ValueError, match="Sequential runs in training mode"):
        capture_feature_maps(model, X, variables=variables)


# Inside transformations, and around them.


def test_linen_capture_is_traceable_over_seeds():
    model = LinenNet()
    variables = [linen_variables(model, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
    result = jax.jit(jax.vmap(lambda v: capture_feature_maps(model, X, variables=v)))(
        stacked
    )
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


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (LinenScanned("params"), "layers/conv"),
        (LinenScanned(True), "layers/conv"),
        (NNXScanned(nnx.Rngs(0), 3), "layers"),
    ],
)
def test_scanned_layers_have_an_entry_for_each_time(model, name):
    maps, output = captured(model)
    assert list(maps) == [name, f"{name}#2"]
    close(maps[f"{name}#2"], output)
    assert maps[name].shape == output.shape
    assert np.any(maps[name] != output)


def test_linen_layers_inside_vmap_are_refused():
    options = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    model = nn.vmap(nn.Conv, in_axes=None, axis_size=2, **options)(4, (3, 3))
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


# Which layers, which arrays.


class ByKeyword(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm()(x=nn.Conv(4, (3, 3))(x))


def normalized(framework, name):
    options = {"num_groups": 2} if name == "GroupNorm" else {}
    if framework is nn:
        options |= {"use_running_average": True} if name == "BatchNorm" else {}
        return nn.Sequential([nn.Conv(4, (3, 3)), getattr(nn, name)(**options)])
    rngs = nnx.Rngs(0)
    norm = getattr(nnx, name)(4, rngs=rngs, **options)
    return nnx.Sequential(nnx.Conv(3, 4, (3, 3), rngs=rngs), norm)


@pytest.mark.parametrize(
    "model",
    [
        *(
            normalized(framework, name)
            for framework in (nn, nnx)
            for name in ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]
        ),
        ByKeyword(),
        nn.Sequential([nn.WeightNorm(nn.Conv(4, (3, 3))), nn.LayerNorm()]),
    ],
)
def test_normalization_of_the_conv_output_comes_before(model):
    maps, output = captured(model)
    (before,) = maps.values()
    close(before, output)


class Inception(nn.Module):
    """Two convs, then their norms; a norm after ReLU, which is not one of a conv."""

    @nn.compact
    def __call__(self, x):
        a, b = nn.Conv(2, (3, 3), name="a")(x), nn.Conv(4, (1, 1), name="b")(x)
        a, b = nn.LayerNorm(name="norm_a")(a), nn.LayerNorm(name="norm_b")(b)
        c = nn.Conv(3, (3, 3), name="c")(nn.relu(jnp.concatenate([a, b], -1)))
        nn.LayerNorm(name="norm_c")(nn.relu(c))
        return {"a": a, "b": b, "c": c}


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv, norm = nn.Conv(3, (3, 3), name="conv"), nn.LayerNorm(name="norm")
        y = conv(x)
        return {"conv": norm(y), "conv#2": conv(y)}


class NNXTwice(nnx.Module):
    """Also where a function is traced once and called twice."""

    def __init__(self, wrap):
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))
        self.norm = nnx.LayerNorm(3, rngs=nnx.Rngs(0))
        self.same = self.norm
        self.block = wrap(lambda model, x: model.same(model.conv(x)))

    def __call__(self, x):
        y = self.block(self, x)
        return {"conv": y, "conv#2": self.block(self, y)}


@pytest.mark.parametrize(
    "model", [Inception(), Twice(), NNXTwice(lambda f: f), NNXTwice(nnx.jit)]
)
def test_each_norm_finds_its_conv_each_time(model):
    maps, outputs = captured(model)
    check_maps(maps, outputs)


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
    maps, output = captured(
        layer, images(2, 6, 3) if np.size(layer.kernel_size) == 1 else X
    )
    check_maps(maps, {type(layer).__name__: output})


@pytest.mark.parametrize(
    ("batch", "layer_type"), [((), nn.Conv), ((2, 3), nn.remat(nn.Conv))]
)
def test_any_number_of_batch_axes_becomes_one(batch, layer_type):
    maps, output = captured(layer_type(4, (3, 3)), images(*batch, 6, 5, 3))
    close(*maps.values(), output.reshape(-1, 6, 5, 4))


# The report.


def test_report_is_the_similarity_of_the_captured_maps():
    variables = linen_variables(LinenNet())
    report = feature_map_report(LinenNet(), X, variables=variables)
    expected = expected_maps(variables)
    assert [layer.path for layer in report.layers] == list(expected)
    for layer, (before, after) in zip(report.layers, expected.values(), strict=True):
        assert layer.shape == before.shape
        similarity = [
            oracle.feature_map_similarity(side, center=center)
            for center in (False, True)
            for side in (before, after)
        ]
        np.testing.assert_allclose(layer[2:6], similarity, rtol=1e-4)
        for row, side in [(layer[6], before), (layer[7], after)]:
            np.testing.assert_allclose(row.effective, cs.effective_maps(side), rtol=1e-4)


def test_report_is_an_aligned_table():
    """With the activation that is given, and the model's arguments."""
    linen, _ = model_with("train")
    variables = linen.init(jax.random.key(0), X, train=False)
    options = {"activation": jnp.zeros_like, "train": True}
    report = feature_map_report(linen, X, variables=variables, **options)
    assert report.layers[0].after == 0
    lines = str(report).splitlines()
    assert lines[0].split()[:4] == ["layer", "shape", "activation", "effective"]
    assert lines[1].split()[:3] == ["Conv_0", "2x6x5x2", "before"]
    assert lines[2].split()[:2] == ["after", "0.0"]
    assert len({len(line) for line in lines}) == 1


# Bad input.


def nothing_but_dense(framework):
    if framework is nn:
        model = nn.Sequential([nn.Dense(2), nn.LayerNorm()])
        return model, {"variables": model.init(jax.random.key(0), X)}
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), nnx.LayerNorm(2, rngs=rngs)), {}


@pytest.mark.parametrize("function", [capture_feature_maps, feature_map_report])
def test_model_and_variables_are_checked(function):
    with pytest.raises(ValueError, match=r"model is of type dict; expected a flax\.lin"):
        function({"params": {}}, X)
    with pytest.raises(ValueError, match="variables is missing: LinenNet is a Linen mod"):
        function(LinenNet(), X)
    with pytest.raises(ValueError, match="variables is given, but NNXNet is an NNX mod"):
        function(nnx_net(), X, variables={"params": {}})


@pytest.mark.parametrize("framework", [nn, nnx])
def test_without_conv_layers_the_others_are_named(framework):
    model, options = nothing_but_dense(framework)
    looked_for = r"no conv layer is applied by Sequential.* layers.0 \((Dense|Linear)\)"
    with pytest.raises(ValueError, match=looked_for):
        capture_feature_maps(model, X, **options)


def test_import_without_flax(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, "convsim_jax.flax")
    with pytest.raises(ImportError, match="needs Flax: pip install flax"):
        importlib.import_module("convsim_jax.flax")
