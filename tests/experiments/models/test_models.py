"""The networks against published figures and tables of shapes; none is run."""

import re
from collections import Counter
from functools import cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from experiments.models import ACTIVATIONS, MODELS, build
from experiments.models.normalization import BatchNorm
from experiments.models.own import feature_maps
from experiments.models.resnet import ResNet

pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation

# Of ten classes; of 1000 where images are ImageNet's.
PUBLISHED_PARAMETERS = {
    # kuangliu's pytorch-cifar, whose networks have the form for CIFAR-10
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "vgg19": 20_040_522,
    # torchvision
    "resnet50-imagenet": 25_557_032,
    # arXiv 1605.07146, 36.5 M; and to the last one in PyTorch ports
    "wrn28-10": 36_479_194,
}


# Convs by the size of the maps that they put out, for images of 32x32, ImageNet's of
# 224x224; a shortcut is one more in each stage but the first, of bottlenecks in that too.
SIZES = {
    "cnn": {32: 1, 16: 1, 8: 1},
    "resnet18": {32: 5, 16: 5, 8: 5, 4: 5},
    "resnet34": {32: 7, 16: 9, 8: 13, 4: 7},
    # The first 1x1 conv of a stage comes before the stride, that of the 3x3 conv.
    "resnet50": {32: 1 + 10 + 1, 16: 12 + 1, 8: 18 + 1, 4: 9},
    "resnet50-imagenet": {112: 1, 56: 10 + 1, 28: 12 + 1, 14: 18 + 1, 7: 9},
    "vgg19": {32: 2, 16: 2, 8: 4, 4: 4, 2: 4},
    "wrn28-10": {32: 10, 16: 9, 8: 9},
}


class Trace(NamedTuple):
    """What was seen of a network without running it; layers in order of use."""

    variables: dict
    logits: jax.ShapeDtypeStruct
    convs: list  # shape of the kernel, size of what comes out
    dtypes: set  # of what comes out
    norms: list  # the modules


def trace(model, size, train=False):
    convs, dtypes, norms = [], set(), []

    def record(method, args, kwargs, context):
        output = method(*args, **kwargs)
        layer = context.module
        if isinstance(layer, nn.Conv):
            kernel = layer.variables["params"]["kernel"].shape
            convs.append((kernel, *set(output.shape[1:3])))
        if isinstance(layer, BatchNorm):
            norms.append(layer)
        if isinstance(layer, nn.Conv | BatchNorm | nn.Dense):
            dtypes.add(output.dtype)
        return output

    images = jnp.zeros((1, size, size, 3))
    with nn.intercept_methods(record):
        logits, variables = jax.eval_shape(
            lambda: model.init_with_output(jax.random.key(0), images, train=train)
        )
    return Trace(variables, logits, convs, dtypes, norms)


def of_published_size(name, **options):
    imagenet = "imagenet" in name
    model = build(name, classes=1000 if imagenet else 10, **options)
    return model, 224 if imagenet else 32


published = cache(lambda name: trace(*of_published_size(name)))


def parameters(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def kernels_of(variables):
    leaves = flatten_dict(variables["params"], sep="/")
    return {path: leaf for path, leaf in leaves.items() if len(leaf.shape) == 4}


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_number_of_parameters(name):
    assert parameters(published(name).variables) == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize(("name", "millions"), {"wrn16-8": 11.0, "wrn40-4": 8.9}.items())
def test_other_wide_resnets(name, millions):
    count = parameters(published(name).variables)
    assert round(count / 1e6, 1) == millions  # as in the paper's tables


@pytest.mark.parametrize("name", SIZES)
def test_layers_logits_and_what_is_captured(name):
    model, size = of_published_size(name)
    seen = published(name)
    assert Counter(size for _, size in seen.convs) == SIZES[name]
    assert seen.logits.shape == (1, model.classes)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    maps = jax.eval_shape(partial(feature_maps, model), seen.variables, images)
    kernels = kernels_of(seen.variables)
    assert {f"{layer}/kernel" for layer in maps} == set(kernels)
    for layer, sides in maps.items():
        channels = kernels[f"{layer}/kernel"].shape[-1]
        assert {side.shape[-1] for side in sides} == {channels}


def test_paths_are_readable():
    kernels = kernels_of(published("resnet50").variables)
    assert {"Conv_0/kernel", "Block_3/Conv_1/kernel", "Block_15/Conv_2/kernel"} <= set(
        kernels
    )


@pytest.mark.parametrize("name", ["cnn", "resnet50", "vgg19", "wrn10-2"])
def test_options_reach_every_layer(name):
    model, size = of_published_size(name, width=0.25, dtype="bfloat16")
    seen = trace(model.clone(momentum=0.0), size, train=True)
    kernels = [shape for shape, _ in published(name).convs]
    narrow = [(*window, C if C == 3 else C // 4, M // 4) for *window, C, M in kernels]
    assert [shape for shape, _ in seen.convs] == narrow
    assert seen.dtypes == {jnp.dtype(jnp.bfloat16)}
    assert seen.logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(seen.variables)} == {
        jnp.dtype(jnp.float32)
    }
    assert {norm.momentum for norm in seen.norms} == {0.0}
    assert not any(norm.use_running_average for norm in seen.norms)
    assert all(norm.use_running_average for norm in published(name).norms)
    assert {norm.momentum for norm in published(name).norms} == {0.9}


@pytest.mark.parametrize(
    ("name", "count"), {"cnn": 3, "resnet18": 17, "vgg19": 16, "wrn28-10": 25}.items()
)
def test_activation_reaches_every_layer(name, count, monkeypatch):
    calls = []
    monkeypatch.setitem(ACTIVATIONS, "elu", lambda x: calls.append(x) or x)
    trace(*of_published_size(name, activation="elu"))
    assert len(calls) == count


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vgg19", "wrn10-1"])
def test_of_the_smallest_image_one_pixel_is_left(name):
    model = build(name, classes=3, width=0.1)
    seen = trace(model, model.smallest_image)
    (*_, channels), size = seen.convs[-1]
    pooled = name in ("cnn", "vgg19")
    assert size == (2 if pooled else 1)
    assert seen.variables["params"]["Dense_0"]["kernel"].shape == (channels, 3)


def test_smallest_image_of_imagenet():
    model = ResNet(classes=3, imagenet=True, width=0.1)
    assert trace(model, model.smallest_image).convs[-1][1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet"}, "--model is 'resnet'; expected cnn, cnn-plain, resnet18, "),
        (
            {"name": "resnet51"},
            "wrn<depth>-<factor> or package.module:name; the closest is resnet5",
        ),
        ({"name": "vgg-19"}, "the closest is vgg19"),
        (
            {"name": "wrn27-10"},
            "--model is 'wrn27-10', of depth 27; expected 4 more than",
        ),
        ({"name": "wrn4-10"}, "--model is 'wrn4-10', of depth 4; expected"),
        ({"name": "wrn28-0"}, "--model is 'wrn28-0', of factor 0; expected 1 or more"),
        ({"activation": "gelu"}, "--activation is 'gelu'; expected relu or elu"),
        ({"width": 0}, "--width is 0; expected more than 0"),
        ({"width": float("nan")}, "--width is nan; expected more than 0"),
    ],
)
def test_unknown_networks(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**({"name": "cnn", "classes": 10} | options))


def test_names():
    assert all(type(build(name, classes=2)) for name in MODELS)
    assert build("wrn28-10", classes=2) == build("wrn28-10", classes=2)
    other = build("wrn16-4", classes=2)
    assert (other.depth, other.k) == (16, 4)
