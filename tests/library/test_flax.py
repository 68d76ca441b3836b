"""Models in evaluation mode, the report of their maps, and models that do not fit."""

import importlib
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

import convsim_jax as cs
from convsim_jax.flax import capture_feature_maps, feature_map_report
from tests.library import oracle
from tests.library.flax_networks import (
    LinenNet,
    X,
    close,
    expected_maps,
    linen_variables,
    nnx_net,
)

# Flax normalizes with mixed dtypes and ranks.
pytestmark = pytest.mark.usefixtures("relaxed_jax")


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
    with pytest.raises(ValueError, match=r"LinenNet runs in training .*train=False"):
        capture_feature_maps(model, X, variables=linen_variables(model), train=True)
    model = nn.Sequential([nn.Conv(4, (3, 3)), nn.Dropout(0.5, deterministic=False)])
    variables = jax.eval_shape(model.init, jax.random.key(0), X)
    variables = jax.tree.map(lambda x: jnp.ones(x.shape), variables)
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
        rows = layer.redundancy_before, layer.redundancy_after
        for side, row, cosine, centered in zip(
            maps, rows, layer[2:4], layer[4:6], strict=True
        ):
            similarity = oracle.feature_map_similarity(side)
            assert cosine == row.cosine == pytest.approx(similarity, rel=1e-4)
            similarity = oracle.feature_map_similarity(side, center=True)
            assert centered == pytest.approx(similarity, rel=1e-4)
            assert row.effective == pytest.approx(
                float(cs.effective_maps(side)), rel=1e-4
            )


def test_report_takes_the_activation_and_the_models_arguments():
    linen, _ = model_with("train")
    variables = linen.init(jax.random.key(0), X, train=False)
    report = feature_map_report(
        linen, X, variables=variables, activation=jnp.zeros_like, train=True
    )
    assert report.layers[0].after == 0


def test_report_is_an_aligned_table():
    lines = str(feature_map_report(nnx_net(), X)).splitlines()
    assert lines[0].split()[:4] == ["layer", "shape", "activation", "effective"]
    assert [line.split()[:3] for line in lines[1::2]] == [
        ["stem", "2x3x3x4", "before"],
        ["block/conv", "2x3x3x4", "before"],
    ]
    assert [line.split()[0] for line in lines[2::2]] == ["after", "after"]
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
