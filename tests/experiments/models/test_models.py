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

from experiments.models import ACTIVATIONS, build
from experiments.models.layers import HE
from experiments.models.own import feature_maps

pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation

# Parameters, of ten classes; and convs by the size of the maps that they put out, for
# images of 32x32. A shortcut is one more in each stage but the first, of bottlenecks in
# that too. ImageNet's images are of 224x224 and 1000 classes.
PUBLISHED = {
    "cnn": (None, {32: 1, 16: 1, 8: 1}),
    # kuangliu's pytorch-cifar, whose networks have the form for CIFAR-10
    "resnet18": (11_173_962, {32: 5, 16: 5, 8: 5, 4: 5}),
    "resnet34": (21_282_122, {32: 7, 16: 9, 8: 13, 4: 7}),
    # The first 1x1 conv of a stage comes before the stride, that of the 3x3 conv.
    "resnet50": (23_520_842, {32: 1 + 10 + 1, 16: 12 + 1, 8: 18 + 1, 4: 9}),
    "vgg19": (20_040_522, {32: 2, 16: 2, 8: 4, 4: 4, 2: 4}),
    # arXiv 2404.00498, but for the first layer, of which half is the other half negated
    "fast": (None, {31: 1 + 1, 15: 1 + 1, 7: 1 + 1, 3: 1}),
    # torchvision
    "resnet50-imagenet": (25_557_032, {112: 1, 56: 10 + 1, 28: 12 + 1, 14: 18 + 1, 7: 9}),
    # arXiv 1605.07146, 36.5 M; and to the last one in PyTorch ports
    "wrn28-10": (36_479_194, {32: 10, 16: 9, 8: 9}),
}


class Trace(NamedTuple):
    """What was seen of a network without running it; layers in order of use."""

    variables: dict
    logits: jax.ShapeDtypeStruct
    convs: list  # shape of the kernel, size of what comes out
    dtypes: set  # of what comes out
    norms: list  # the modules
    starts: set  # initializers of kernels


def trace(model, size, train=False):
    convs, dtypes, norms, starts = [], set(), [], set()

    def record(method, args, kwargs, context):
        output = method(*args, **kwargs)
        layer = context.module
        if isinstance(layer, nn.Conv):
            kernel = layer.variables["params"]["kernel"].shape
            convs.append((kernel, *set(output.shape[1:3])))
            starts.add(layer.kernel_init)
        if isinstance(layer, nn.BatchNorm):
            norms.append(layer)
        if isinstance(layer, nn.Conv | nn.BatchNorm | nn.Dense):
            dtypes.add(output.dtype)
        return output

    images = jnp.zeros((1, size, size, 3))
    with nn.intercept_methods(record):
        logits, variables = jax.eval_shape(
            lambda: model.init_with_output(jax.random.key(0), images, train=train)
        )
    return Trace(variables, logits, convs, dtypes, norms, starts)


def of_published_size(name, **options):
    imagenet = "imagenet" in name
    model = build(name, classes=1000 if imagenet else 10, **options)
    return model, 224 if imagenet else 32


published = cache(lambda name: trace(*of_published_size(name)))


def parameters(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_layers_logits_and_what_is_captured(name):
    count, sizes = PUBLISHED[name]
    model, size = of_published_size(name)
    seen = published(name)
    assert count in (None, parameters(seen.variables))
    assert Counter(size for _, size in seen.convs) == sizes
    assert seen.logits.shape == (1, model.classes)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    maps = jax.eval_shape(partial(feature_maps, model), seen.variables, images)
    leaves = flatten_dict(seen.variables["params"], sep="/")
    kernels = {path: leaf for path, leaf in leaves.items() if len(leaf.shape) == 4}
    assert {f"{layer}/kernel" for layer in maps} == set(kernels)
    for layer, sides in maps.items():
        channels = kernels[f"{layer}/kernel"].shape[-1]
        assert {side.shape[-1] for side in sides} == {channels}
    if name == "resnet50":  # as in the checkpoints that there are
        assert {"Conv_0/kernel", "Block_3/Conv_1/kernel"} <= set(kernels)


def test_the_cnn_starts_as_flax_layers_do_and_deep_networks_by_he():
    assert published("cnn").starts == {nn.Conv(1, (1, 1)).kernel_init}
    assert published("resnet18").starts == published("vgg19").starts == {HE}


@pytest.mark.parametrize(("name", "millions"), {"wrn16-8": 11.0, "wrn40-4": 8.9}.items())
def test_other_wide_resnets(name, millions):
    count = parameters(published(name).variables)
    assert round(count / 1e6, 1) == millions  # as in the paper's tables


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


@pytest.mark.parametrize(
    ("name", "last"),
    {"cnn": 2, "vgg19": 2, "resnet18": 1, "resnet50-imagenet": 1, "wrn10-1": 1}.items(),
)
def test_of_the_smallest_image_one_pixel_is_left(name, last):
    model = build(name, classes=3, width=0.1)
    seen = trace(model, model.smallest_image)
    (*_, channels), size = seen.convs[-1]
    assert size == last  # before pooling
    assert seen.variables["params"]["Dense_0"]["kernel"].shape == (channels, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet"}, "--model is 'resnet'; expected cnn, cnn-plain, fast, "),
        ({"name": "resnet51"}, "or package.module:name; the closest is resnet5"),
        ({"name": "vgg-19"}, "the closest is vgg19"),
        ({"name": "wrn27-10"}, "--model is 'wrn27-10', of depth 27; expected 4 more"),
        ({"name": "wrn4-10"}, "--model is 'wrn4-10', of depth 4; expected"),
        ({"name": "wrn28-0"}, "--model is 'wrn28-0', of factor 0; expected 1 or more"),
    ],
)
def test_unknown_networks(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**({"name": "cnn", "classes": 10} | options))
