"""Made-up results of the classification experiment."""

import numpy as np

from experiments.classify.results import Result
from experiments.measurement import Layers


def measurement(seeds, scale=1.0):
    layers = np.full((seeds, 3), 0.25)
    return Layers(
        names=[f"Conv_{layer}/kernel" for layer in range(3)],
        shapes=[[3, 3, 2, 4]] * 3,
        norm=np.full((seeds, 3), 15.0 * scale / np.sqrt(3)),
        paper_loss=np.full((seeds, 3), 123.4 * scale / 3),
        scale_free_loss=np.full((seeds, 3), 2.5 / 3),
        before=layers,
        after=layers,
        before_centered=layers,
        after_centered=layers,
    )


def result(accuracy, diverged_at=None, scale=1.0):
    """A result of those accuracies, shape (seeds, epochs)."""
    accuracy = np.asarray(accuracy, float)
    seeds = len(accuracy)
    return Result(
        strength=0.5,
        seconds=1.25,
        diverged_at=np.array(diverged_at or [0] * seeds),
        loss=100 - accuracy,
        accuracy=accuracy,
        start=measurement(seeds, scale),
        end=measurement(seeds, scale),
    )


def kernels():
    """Of two conv layers, before and after training."""
    generator = np.random.default_rng(0)
    return {
        f"{when}/Conv_{layer}/kernel": generator.normal(size=(3, 3, 2, 4))
        for when in ("start", "end")
        for layer in range(2)
    }
