"""The networks, in Flax Linen, by name."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from experiments.models.cnn import CNN
from experiments.models.layers import ACTIVATIONS
from experiments.models.resnet import ResNet
from experiments.models.vgg import VGG19
from experiments.models.wide_resnet import WideResNet

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
    width: float = 1.0,
    activation: str = "relu",
    dtype: Any = jnp.float32,
) -> nn.Module:
    """The network of that name.

    Its `__call__(images, *, train=False)` takes images `(batch, height, width, channels)`
    and returns float32 logits `(batch, classes)`. It has the attributes `activation`,
    `momentum` (of the running averages of batch normalisation) and `smallest_image`.

    Args:
        name: one in `MODELS`, or wrn{d}-{k}: the WideResNet of that depth and factor.
        classes: number of classes.
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
    if not width > 0:
        raise ValueError(f"--width is {width}; expected more than 0")
    return constructor(name)(
        classes=classes, width=width, activation=activation, dtype=jnp.dtype(dtype)
    )


def constructor(name: str) -> Callable[..., nn.Module]:
    """What makes the network of that name; raises as `build` does."""
    if name in MODELS:
        return MODELS[name]
    numbers = re.fullmatch(r"wrn(\d+)-(\d+)", name)
    if not numbers:
        (closest,) = difflib.get_close_matches(name, MODELS, n=1, cutoff=0)
        raise ValueError(
            f"--model is {name!r}; expected {', '.join(MODELS)} or wrn<depth>-<factor>; "
            f"the closest is {closest}"
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
