"""Networks of one's own, named on a command line."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import convsim_jax as cs
from experiments.data.open import open_source
from experiments.models import build
from experiments.models.own import attribute, feature_maps
from experiments.train.loading import load_run

pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's layers promote
HERE = "tests.experiments.models.test_models_own"
IMAGES = np.random.default_rng(0).standard_normal((4, 6, 6, 2)).astype("f4")
KEY = jax.random.key(3)


class Small(nn.Module):
    """Takes its mode by another name, and without a default."""

    classes: int
    activation = staticmethod(jnp.tanh)
    smallest_image = 5

    @nn.compact
    def __call__(self, images, deterministic):
        x = nn.Conv(5, (3, 3), name="conv")(images)
        x = jnp.tanh(nn.BatchNorm(deterministic)(x)).mean((1, 2))
        x = nn.Dropout(0.5, rng_collection="noise")(x, deterministic=deterministic)
        return nn.Dense(self.classes, name="head")(x)


class SmallNNX(nnx.Module):
    def __init__(self, classes, channels, *, rngs):
        self.convs = nnx.List([nnx.Conv(channels, 5, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(5, classes, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.norm(self.convs[0](images))).mean((1, 2))
        return self.head(self.noise(x))


def function(classes, width):
    return nn.Sequential([lambda x: x.mean((1, 2)), nn.Dense(classes * int(width))])


def nothing():
    return "nothing"


def own(name, **options):
    return build(f"{HERE}:{name}", classes=3, channels=2, **options)


def trained(model, variables, key):
    rest = [name for name in variables if name != "params"]
    return model.apply(variables, IMAGES, train=True, mutable=rest, rngs=key)


@pytest.fixture(params=["Small", "SmallNNX"], scope="module")
def network(request):
    model = own(request.param)
    return request.param, model, jax.jit(model.init)(KEY, IMAGES)


def test_networks_with_other_calls_are_called_alike(network):
    name, model, variables = network
    path = {"Small": "conv/kernel", "SmallNNX": "convs/0/kernel"}[name]
    assert list(cs.conv_kernels(variables["params"])) == [path]
    logits = model.apply(variables, IMAGES)
    np.testing.assert_array_equal(logits, model.apply(variables, IMAGES))
    training = jax.jit(partial(trained, model))
    one, updated = training(variables, KEY)
    np.testing.assert_array_equal(one, training(variables, KEY)[0])
    assert (one != training(variables, jax.random.key(4))[0]).any()
    assert (one != logits).any()
    rest = {k: v for k, v in variables.items() if k != "params"}
    assert jax.tree.structure(rest) == jax.tree.structure(dict(updated))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), rest, dict(updated))
    assert any(jax.tree.leaves(changed))


def test_a_linen_network_computes_what_it_does_by_itself():
    model, plain = own("Small"), Small(3)
    variables = jax.jit(partial(plain.init, deterministic=True))(KEY, IMAGES)
    ours = jax.jit(model.init)(KEY, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, variables, ours)
    expected = plain.apply(variables, IMAGES, deterministic=True)
    np.testing.assert_array_equal(model.apply(variables, IMAGES), expected)
    ours, averages = trained(model, variables, KEY)
    expected, updated = plain.apply(
        variables, IMAGES, deterministic=False, mutable=["batch_stats"], rngs=KEY
    )
    np.testing.assert_array_equal(ours, expected)
    jax.tree.map(np.testing.assert_array_equal, averages, updated)


def test_an_nnx_network_computes_what_it_does_by_itself():
    model, plain = own("SmallNNX"), SmallNNX(3, 2, rngs=nnx.Rngs(KEY))
    variables = model.init(KEY, IMAGES)
    plain.eval()
    np.testing.assert_allclose(model.apply(variables, IMAGES), plain(IMAGES), rtol=1e-5)
    plain.train()
    plain(IMAGES)  # its running averages follow
    _, updated = trained(model, variables, KEY)
    for name in ("mean", "var"):
        expected = getattr(plain.norm, name)[...]
        np.testing.assert_allclose(updated["state"]["norm"][name], expected, rtol=1e-5)

    def loss(params):
        return trained(model, {**variables, "params": params}, KEY)[0].sum()

    slopes = jax.jit(jax.grad(loss))(variables["params"])
    np.testing.assert_allclose(slopes["head"]["bias"], 4, rtol=1e-6)
    assert np.abs(slopes["convs"]["0"]["kernel"]).max() > 0


def test_maps_are_measured_after_the_activation_that_a_network_names(network):
    name, model, variables = network
    ((_, maps),) = feature_maps(model, variables, IMAGES).items()
    act, smallest = (jnp.tanh, 5) if name == "Small" else (nnx.relu, 1)
    assert maps.before.shape == (4, 6, 6, 5)
    np.testing.assert_allclose(maps.after, act(maps.before), rtol=1e-6)
    assert attribute(model, "smallest_image", 1) == smallest


def test_options_reach_what_takes_them_and_maps_that_cannot_be_seen_are_none():
    model = own("function", width=2.0)
    assert model.network.layers[1].features == 6
    assert feature_maps(model, jax.jit(model.init)(KEY, IMAGES), IMAGES) == {}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Small", {"width": 0.5}, "^--width is 0.5; expected 1.0: .*:Small takes no w"),
        ("Small", {"activation": "elu"}, "^--activation is elu; expected relu: .*takes"),
        ("Small", {"dtype": "bfloat16"}, "^--dtype is bfloat16; expected float32: .*no"),
        ("nothing", {}, "^--model is .*:nothing', which makes str; expected a flax.lin"),
        ("none", {}, "^--model is .*:none', which cannot be imported: AttributeError"),
        ("IMAGES", {}, "^--model is .*:IMAGES', ndarray; expected a function or class"),
        ("trained", {}, "^--model is .*:trained', which fails: TypeError: .* missing 3"),
    ],
)
def test_names_that_are_no_network(name, options, message):
    with pytest.raises(ValueError, match=message):
        own(name, **options)


# As the documentation has them.
OUTSIDE = """
import flax.linen as nn
import numpy as np

class Small(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(self.classes)(x.reshape(len(x), -1))

def stripes():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 80)
    images = generator.integers(0, 60, (80, 8, 8, 1))
    images[labels == 0, ::2] += 190
    images[labels == 1, :, ::2] += 190
    pair = images.astype(np.uint8), labels
    return {"train": pair, "test": pair, "class_names": ["rows", "columns"]}
"""


def test_a_run_of_a_network_and_images_from_outside(tmp_path, monkeypatch):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    root = str(Path(__file__).parents[3])
    options = (
        "--model outside:Small --dataset outside:stripes --image-size 8 --workers 1 "
        "--epochs 3 --seeds 1 --batch-size 8 --output run"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.train", *options.split()],
        env={
            **os.environ,
            "PYTHONPATH": root,
            "JAX_NUM_CPU_DEVICES": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    (row,) = [line for line in ended.stdout.splitlines() if line.startswith("0 ")]
    assert float(row.split()[1]) > 90
    assert (tmp_path / "run" / "report.html").exists()
    monkeypatch.syspath_prepend(tmp_path)
    model, variables = load_run(tmp_path / "run")
    images = open_source("outside:stripes").splits["test"][0][0][None] / np.float32(60)
    assert model.apply(variables, images).shape == (1, 2)
