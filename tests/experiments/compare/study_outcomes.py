"""Made-up outcomes of the study's trials."""

import numpy as np

from experiments.study.results import Epoch, Layer, Outcome, Score, Trial

BASE = [60.0, 61.0, 59.0, 60.5, 62.0]  # accuracies of the baseline
ABOUT = (1.5, "cpu", "jax 0.10, numpy 2.0")


def scored(*accuracies, first_seed=5):
    """Seeds of those accuracies; one that is NaN diverged in epoch 3."""
    return Outcome(
        [
            Score(first_seed + place, value, 3 if np.isnan(value) else 0, *ABOUT)
            for place, value in enumerate(map(float, accuracies))
        ],
        [],
        [],
    )


def final(accuracies, curves=None, similarity=0.5, norm=1.0):
    """The same, scored on test images, with curves `(seeds, epochs)` and two layers."""
    outcome = scored(*accuracies, first_seed=0)
    if curves is None:
        curves = [[10 * epoch + value for epoch in range(4)] for value in accuracies]
    for seed, curve in enumerate(curves):
        for epoch, value in enumerate(map(float, curve), 1):
            outcome.epochs.append(Epoch(seed, epoch, 100 - value, value))
        last = len(curve)
        for epoch in (0, last // 2, last):
            for layer in range(2):
                gone = epoch and np.isnan(curve[epoch - 1])
                maps = np.nan if gone else similarity / 2 ** (epoch / last) + layer / 10
                outcome.layers.append(
                    Layer(
                        seed,
                        epoch,
                        f"Conv_{layer}/kernel",
                        norm * (layer + 3),  # 3 and 4: together 5
                        *(20.0, 0.25, maps, maps / 2, maps / 4, maps / 8),
                    )
                )
    return outcome


def trial_of(treatment, strength=10.0, rate=0.02):
    return Trial("test", treatment, 0.0 if treatment == "none" else strength, rate)
