"""The networks, in Flax Linen, by name; and those of one's own."""

import difflib
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from experiments.models.cnn import CNN
from experiments.models.layers import ACTIVATIONS
from experiments.models.own import own_network
from experiments.models.resnet import ResNet
from experiments.models.vgg import VGG19
from experiments.models.wide_resnet import WideResNet
from experiments.own_code import is_own

__all__ = ["ACTIVATIONS", "MODELS", "build"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": CNN,
    "cnn-plain": partial(CNN, batch_norm=False),
    "resnet18": ResNet,
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet50-imagenet": partial(
        ResNet, blocks=(3, 4, 6, 3), bottleneck=True, imagenet=True
    ),
    "vgg19": VGG19,
    "wrn28-10": WideResNet,
}


def build(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    width: float = 1.0,
    activation: str = "relu",
    dtype: Any = jnp.float32,
) -> Any:
    """The network of that name.

    `apply(variables, images, train=False)` takes images `(batch, height, width,
    channels)` and returns float32 logits `(batch, classes)`.

    Args:
        name: one in `MODELS`; wrn{d}-{k}: the WideResNet of that depth and factor; or one
            of one's own as `"package.module:name"`, see `experiments.models.own`.
        classes: number of classes.
        channels: of the images; for networks of one's own.
        width: multiplies the channels.
        activation: a name in `ACTIVATIONS`.
        dtype: to compute in; the weights are float32.

    Raises:
        ValueError: there is no such network or activation, or a width of 0 or less.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"--activation is {activation!r}; expected {' or '.join(ACTIVATIONS)}"
        )
    if not 0 < width < math.inf:
        raise ValueError(f"--width is {width}; expected more than 0")
    options = {"width": width, "activation": activation, "dtype": jnp.dtype(dtype)}
    if is_own(name):
        return own_network(name, classes=classes, channels=channels, **options)
    return constructor(name)(classes=classes, **options)


def constructor(name: str) -> Callable[..., nn.Module]:
    """What makes the network of that name; raises as `build` does."""
    if name in MODELS:
        return MODELS[name]
    numbers = re.fullmatch(r"wrn([0-9]{1,3})-([0-9]{1,6})", name)
    if not numbers:
        (closest,) = difflib.get_close_matches(name, MODELS, n=1, cutoff=0)
        raise ValueError(
            f"--model is {name!r}; expected {', '.join(MODELS)}, wrn<depth>-<factor> or "
            f"package.module:name; the closest is {closest}"
        )
    depth, k = map(int, numbers.groups())
    if depth < 10 or depth % 6 != 4:
        raise ValueError(
            f"--model is {name!r}, of depth {depth}; expected 4 more than a multiple of "
            "6: 10, 16, 22, 28 and so on"
        )
    if k < 1:
        raise ValueError(f"--model is {name!r}, of factor {k}; expected 1 or more")
    return partial(WideResNet, depth=depth, k=k)
