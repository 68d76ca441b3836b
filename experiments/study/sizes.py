"""Accuracy against the number of parameters, of networks that differ in width alone."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.models import build
from experiments.options import Config
from experiments.study.findings import Finding
from experiments.study.plots import DPI, colour_of
from experiments.study.settings import BY_WIDTH, SETTINGS

SHOWN = ("none", "shrunk", "scale-free-shrunk", "decay", "decay+scale-free-shrunk")
CIFAR10 = (32, 32, 3), 10  # the images and the classes of all of these settings


def sizes(found: Mapping[str, Mapping[str, Finding]]) -> Figure | None:
    """Test accuracy of each treatment, width by width; None of fewer than two widths."""
    widths = [name for name in BY_WIDTH if name in found]
    if len(widths) < 2:
        return None
    numbers = {name: parameters(SETTINGS[name].config) for name in widths}
    figure = Figure(figsize=(6.5, 3.8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    drawn = [name for name in SHOWN if any(name in found[width] for width in widths)]
    for place, name in enumerate(drawn):
        known = [width for width in widths if name in found[width]]
        accuracies = [found[width][name].accuracy for width in known]
        apart = 1 + 0.03 * (place - len(drawn) / 2)  # so that intervals can be told apart
        axes.errorbar(
            [apart * numbers[width] for width in known],
            [value.mean for value in accuracies],
            yerr=[value.reach for value in accuracies],
            color="black" if name == "none" else colour_of(name),
            marker="o",
            markersize=4,
            capsize=3,
            label=name,
        )
    axes.set_xscale("log")
    ticks = [numbers[width] for width in widths]
    labels = [
        f"{number:,}\n({SETTINGS[width].config.width:g} of the width)"
        for width, number in numbers.items()
    ]
    axes.set_xticks(ticks, labels)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="parameters", ylabel="test accuracy %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def parameters(config: Config) -> int:
    """Of a network for CIFAR-10."""
    shape, classes = CIFAR10
    model = build(config.model, classes=classes, width=config.width)
    images = jnp.zeros((1, *shape), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
