import importlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from convsim_jax.flax import FeatureMaps, capture_feature_maps, feature_map_report
from tests import oracle

# Flax normalizes with mixed dtypes and ranks.
pytestmark = pytest.mark.usefixtures("relaxed_jax")

NORMS = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


X = images(2, 6, 5, 3)


def close(result, expected):
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


# Two frameworks, one network: conv, batch norm, ReLU, then a block of its own with a
# conv, no norm, a shortcut and ReLU, then a dense layer.


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
    variables = model.init(jax.random.key(seed), X, train=False)
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


def check_maps(result, expected):
    assert list(result) == list(expected)
    jax.tree.map(close, result, expected)


def test_linen():
    variables = linen_variables(LinenNet())
    result = capture_feature_maps(LinenNet(), X, variables=variables)
    check_maps(result, expected_maps(variables))


def test_nnx():
    result = capture_feature_maps(nnx_net(), X)
    check_maps(result, expected_maps(linen_variables(LinenNet())))


def test_activation():
    variables = linen_variables(LinenNet())
    result = capture_feature_maps(LinenNet(), X, variables=variables, activation=jnp.tanh)
    check_maps(result, expected_maps(variables, jnp.tanh))
    result = capture_feature_maps(nnx_net(), X, activation=jnp.tanh)
    check_maps(result, expected_maps(variables, jnp.tanh))


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


@pytest.mark.parametrize("transform", [nn.remat, nn.jit])
def test_linen_layers_inside_transformations(transform):
    model = LinenNet(block=transform(LinenBlock))
    variables = linen_variables(model)
    for _ in range(2):  # the second time from the transformation's cache
        result = capture_feature_maps(model, X, variables=variables)
        check_maps(result, expected_maps(variables))


@pytest.mark.parametrize("transform", [nnx.remat, nnx.jit])
def test_nnx_layers_inside_transformations(transform):
    model = nnx_net(transform)
    for _ in range(2):
        result = capture_feature_maps(model, X)
        check_maps(result, expected_maps(linen_variables(LinenNet())))


class LinenScanned(nn.Module):
    collections: Any  # those that are stacked; others do not leave the scan

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            LinenLayer,
            variable_axes={self.collections: 0},
            split_rngs={"params": True},
            length=2,
        )
        return layers(name="layers")(x, None)


class LinenLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Conv(3, (3, 3), name="conv")(x), None


class NNXScanned(nnx.Module):
    def __init__(self, rngs):
        make = nnx.vmap(lambda rngs: nnx.Conv(3, 3, (3, 3), rngs=rngs))
        self.layers = nnx.split_rngs(splits=2)(make)(rngs)

    def __call__(self, x):
        return nnx.scan(
            lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
        )(x, self.layers)


@pytest.mark.parametrize("collections", ["params", True])
def test_scanned_linen_layers_are_refused(collections):
    model = LinenScanned(collections)
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(
        ValueError, match="layers/conv of LinenScanned runs inside scan or vmap"
    ):
        capture_feature_maps(model, X, variables=variables)


def test_scanned_nnx_layers_are_refused():
    with pytest.raises(ValueError, match="layers of NNXScanned runs inside scan or vmap"):
        capture_feature_maps(NNXScanned(nnx.Rngs(0)), X)


# Which layers, which arrays.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("by_keyword", [False, True])
def test_linen_normalization_of_the_conv_output_comes_before(norm, by_keyword):
    options = {"use_running_average": True} if norm == "BatchNorm" else {}
    options |= {"num_groups": 2} if norm == "GroupNorm" else {}

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3))(x)
            layer = getattr(nn, norm)(**options)
            return layer(x=x) if by_keyword else layer(x)

    variables = Model().init(jax.random.key(0), X)
    maps = capture_feature_maps(Model(), X, variables=variables)
    close(maps["Conv_0"].before, Model().apply(variables, X))


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
    variables = Inception().init(jax.random.key(0), X)
    expected = Inception().apply(variables, X)
    maps = capture_feature_maps(Inception(), X, variables=variables)
    assert list(maps) == ["a", "b", "c"]
    for layer, output in zip(maps.values(), expected, strict=False):
        close(layer.before, output)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv, norm = nn.Conv(3, (3, 3), name="conv"), nn.LayerNorm(name="norm")
        y = conv(x)
        z = conv(y)
        return norm(y), z


def test_a_layer_applied_twice_has_two_entries():
    variables = Twice().init(jax.random.key(0), X)
    first, second = Twice().apply(variables, X)
    maps = capture_feature_maps(Twice(), X, variables=variables)
    assert list(maps) == ["conv", "conv#2"]
    close(maps["conv"].before, first)
    close(maps["conv#2"].before, second)


class NNXTwice(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.again = self.conv

    def __call__(self, x):
        return self.again(self.conv(x))


def test_an_nnx_layer_applied_twice_has_two_entries():
    model = NNXTwice(nnx.Rngs(0))
    maps = capture_feature_maps(model, X)
    first, second = sorted(maps, key=len)
    assert second == first + "#2"
    close(maps[first].before, model.conv(X))
    close(maps[second].before, model(X))


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
        variables = layer.init(jax.random.key(0), x)
        maps = capture_feature_maps(layer, x, variables=variables)
        expected = layer.apply(variables, x)
    else:
        maps = capture_feature_maps(layer, x)
        expected = layer(x)
    assert list(maps) == [type(layer).__name__]
    close(maps[type(layer).__name__].before, expected)


@pytest.mark.parametrize("batch", [(), (2, 3)])
@pytest.mark.parametrize("layer_type", [nn.Conv, nn.remat(nn.Conv)])
def test_any_number_of_batch_axes_becomes_one(batch, layer_type):
    layer, x = layer_type(4, (3, 3)), images(*batch, 6, 5, 3)
    variables = layer.init(jax.random.key(0), x)
    (maps,) = capture_feature_maps(layer, x, variables=variables).values()
    close(maps.before, layer.apply(variables, x).reshape(-1, 6, 5, 4))


# Evaluation mode.

MODES = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


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
    nnx_type = type(
        "NNX",
        (nnx.Module,),
        {"__init__": namespace["init"], "__call__": namespace["nnx_"]},
    )
    return linen(), nnx_type()


@pytest.mark.parametrize(("mode", "evaluation"), MODES.items())
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
    with pytest.raises(
        ValueError, match=r"LinenNet runs in training mode: pass.*such as train=False"
    ):
        capture_feature_maps(model, X, variables=linen_variables(model), train=True)


def test_dropout_that_is_not_deterministic_is_an_error():
    model = nn.Sequential([nn.Conv(4, (3, 3)), nn.Dropout(0.5, deterministic=False)])
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="Sequential runs in training mode"):
        capture_feature_maps(model, X, variables=variables)


# The report.


def test_report_is_the_similarity_of_the_captured_maps():
    variables = linen_variables(LinenNet())
    report = feature_map_report(LinenNet(), X, variables=variables)
    expected = expected_maps(variables)
    assert [layer.path for layer in report.layers] == list(expected)
    for layer, maps in zip(report.layers, expected.values(), strict=True):
        assert layer.shape == maps.before.shape
        for value, side, center in [
            (layer.before, maps.before, False),
            (layer.after, maps.after, False),
            (layer.before_centered, maps.before, True),
            (layer.after_centered, maps.after, True),
        ]:
            similarity = oracle.feature_map_similarity(side, center=center)
            assert value == pytest.approx(similarity, rel=1e-4)


def test_report_takes_the_activation_and_the_models_arguments():
    linen, _ = model_with("train")
    variables = linen.init(jax.random.key(0), X, train=False)
    report = feature_map_report(
        linen, X, variables=variables, activation=jnp.zeros_like, train=True
    )
    assert report.layers[0].after == 0


def test_report_is_an_aligned_table():
    lines = str(feature_map_report(nnx_net(), X)).splitlines()
    assert lines[0].split() == (
        ["layer", "shape", "before", "after", "before,", "centered", "after,", "centered"]
    )
    assert [line.split()[:2] for line in lines[1:]] == [
        ["stem", "2x3x3x4"],
        ["block/conv", "2x3x3x4"],
    ]
    assert len({len(line) for line in lines}) == 1


# Bad input.


@pytest.mark.parametrize("function", [capture_feature_maps, feature_map_report])
def test_wrong_model(function):
    with pytest.raises(
        ValueError,
        match=r"model is of type dict; expected a flax\.linen\.Module or flax\.nnx\.Mod",
    ):
        function({"params": {}}, X)


def test_linen_without_variables():
    with pytest.raises(
        ValueError, match="variables is missing: LinenNet is a Linen module"
    ):
        capture_feature_maps(LinenNet(), X)


def test_nnx_with_variables():
    with pytest.raises(
        ValueError, match="variables is given, but NNXNet is an NNX module"
    ):
        capture_feature_maps(nnx_net(), X, variables={"params": {}})


def test_linen_without_conv_layers():
    model = nn.Sequential([nn.Dense(2), nn.LayerNorm()])
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(
        ValueError,
        match=r"no conv layer is applied by Sequential: looked for Conv, ConvLocal and "
        r"ConvTranspose among layers_0 \(Dense\), layers_1 \(LayerNorm\)",
    ):
        capture_feature_maps(model, X, variables=variables)


def test_nnx_without_conv_layers():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), nnx.LayerNorm(2, rngs=rngs))
    with pytest.raises(
        ValueError,
        match=r"no conv layer is applied by Sequential: looked for Conv, ConvLocal and "
        r"ConvTranspose among .*layers/0 \(Linear\), layers/1 \(LayerNorm\)",
    ):
        capture_feature_maps(model, X)


def test_import_without_flax(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, "convsim_jax.flax")
    with pytest.raises(ImportError, match="needs Flax: pip install flax"):
        importlib.import_module("convsim_jax.flax")


def test_the_core_does_not_import_flax():
    program = "import sys, convsim_jax; sys.exit('flax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
