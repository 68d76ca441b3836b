"""The networks, in Flax Linen, by name; and those of one's own."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from experiments.models.cnn import CNN
from experiments.models.fast import Fast
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
    "fast": Fast,
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
    widths: tuple[int, ...] = (),
    activation: str = "relu",
    dtype: Any = jnp.float32,
) -> Any:
    """The network of that name.

    That is one in `MODELS`; wrn{d}-{k}, the WideResNet of that depth and factor; or one
    of one's own as `"package.module:name"`, which may need the images' `channels`.

    `apply(variables, images, train=False)` takes images `(batch, height, width,
    channels)` and returns float32 logits `(batch, classes)`. The weights are float32,
    whatever `dtype` is computed in.
    """
    options = {"width": width, "activation": activation, "dtype": jnp.dtype(dtype)}
    if widths:
        options["widths"] = tuple(widths)
        in_a_row = [x for x, y in MODELS.items() if y(classes=classes).in_a_row]
        if name not in in_a_row:
            raise ValueError(
                f"--widths is given with --model {name}, whose layers share their "
                f"channels; expected {', '.join(in_a_row)}"
            )
    if is_own(name):
        return own_network(name, classes=classes, channels=channels, **options)
    if name in MODELS:
        return MODELS[name](classes=classes, **options)
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
    return WideResNet(classes=classes, depth=depth, k=k, **options)
