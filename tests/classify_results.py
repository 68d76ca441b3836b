"""Made-up results of the classification experiment."""

import numpy as np

from experiments.classify.results import Result
from experiments.measurement import Measurement


def measurement(seeds, scale=1.0):
    layers = np.full((seeds, 3), 0.25)
    return Measurement(
        paper_loss=np.full(seeds, 123.4 * scale),
        scale_free_loss=np.full(seeds, 2.5),
        norm=np.full(seeds, 15.0 * scale),
        before=layers,
        after=layers,
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
