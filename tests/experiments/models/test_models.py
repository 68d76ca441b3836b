"""The networks against published figures and tables of shapes; none is run."""

import re
from functools import cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from convsim_jax.flax import capture_feature_maps
from experiments.models import ACTIVATIONS, MODELS, build
from experiments.models.normalization import BatchNorm
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


def bottlenecks(size, C, width, count, stride):
    """Each kernel's shape, and the size of the maps that the conv puts out."""
    small = size // stride
    M = 4 * width
    first = [
        ((1, 1, C, width), size),
        ((3, 3, width, width), small),
        ((1, 1, width, M), small),
        ((1, 1, C, M), small),
    ]
    other = [
        ((1, 1, M, width), small),
        ((3, 3, width, width), small),
        ((1, 1, width, M), small),
    ]
    return first + other * (count - 1)


def pairs(size, C, M, count, stride=2):
    """The same of blocks of two 3x3 convs."""
    small = size // stride
    shortcut = [((1, 1, C, M), small)] if C != M else []
    first = [((3, 3, C, M), small), ((3, 3, M, M), small), *shortcut]
    return first + [((3, 3, M, M), small)] * 2 * (count - 1)


def vgg_stage(size, C, M, count):
    return [((3, 3, C, M), size)] + [((3, 3, M, M), size)] * (count - 1)


# In order of use, for images of 32x32, ImageNet's of 224x224.
SHAPES = {
    "cnn": [((3, 3, 3, 32), 32), ((3, 3, 32, 64), 16), ((3, 3, 64, 128), 8)],
    "resnet18": [
        ((3, 3, 3, 64), 32),
        *pairs(32, 64, 64, 2, stride=1),
        *pairs(32, 64, 128, 2),
        *pairs(16, 128, 256, 2),
        *pairs(8, 256, 512, 2),
    ],
    "resnet34": [
        ((3, 3, 3, 64), 32),
        *pairs(32, 64, 64, 3, stride=1),
        *pairs(32, 64, 128, 4),
        *pairs(16, 128, 256, 6),
        *pairs(8, 256, 512, 3),
    ],
    "resnet50": [
        ((3, 3, 3, 64), 32),
        *bottlenecks(32, 64, 64, 3, stride=1),
        *bottlenecks(32, 256, 128, 4, stride=2),
        *bottlenecks(16, 512, 256, 6, stride=2),
        *bottlenecks(8, 1024, 512, 3, stride=2),
    ],
    "resnet50-imagenet": [
        ((7, 7, 3, 64), 112),
        *bottlenecks(56, 64, 64, 3, stride=1),
        *bottlenecks(56, 256, 128, 4, stride=2),
        *bottlenecks(28, 512, 256, 6, stride=2),
        *bottlenecks(14, 1024, 512, 3, stride=2),
    ],
    "vgg19": [
        *vgg_stage(32, 3, 64, 2),
        *vgg_stage(16, 64, 128, 2),
        *vgg_stage(8, 128, 256, 4),
        *vgg_stage(4, 256, 512, 4),
        *vgg_stage(2, 512, 512, 4),
    ],
    "wrn28-10": [
        ((3, 3, 3, 16), 32),
        *pairs(32, 16, 160, 4, stride=1),
        *pairs(32, 160, 320, 4),
        *pairs(16, 320, 640, 4),
    ],
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


@pytest.mark.parametrize("name", SHAPES)
def test_layers(name):
    assert published(name).convs == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_what_is_captured(name):
    model, size = of_published_size(name)
    variables = published(name).variables
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    assert published(name).logits.shape == (1, model.classes)
    maps = jax.eval_shape(
        lambda variables, images: capture_feature_maps(
            model, images, variables=variables, activation=ACTIVATIONS["relu"]
        ),
        variables,
        images,
    )
    kernels = kernels_of(variables)
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
