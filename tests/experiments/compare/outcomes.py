"""Made-up outcomes of trials."""

import numpy as np

from experiments.compare.results import Epoch, Layer, Outcome, Score, Trial

NAN = np.nan
BASE = [60.0, 61.0, 59.0, 60.5, 62.0]  # accuracies of the baseline
ABOUT = (1.5, "cpu", "jax 0.10, numpy 2.0")


def scored(*accuracies, first_seed=5):
    """Seeds of those accuracies; one that is NaN diverged in epoch 3."""
    scores = [
        Score(seed, value, 3 if np.isnan(value) else 0, *ABOUT)
        for seed, value in enumerate(map(float, accuracies), first_seed)
    ]
    return Outcome(scores, [], [], {})


def final(accuracies, curves=None, similarity=0.5, norm=1.0, kernels=False):
    """The same, reported, with curves `(seeds, epochs)` and two layers."""
    outcome = scored(*accuracies, first_seed=0)
    if curves is None:
        curves = [[10 * epoch + value for epoch in range(4)] for value in accuracies]
    for seed, curve in enumerate(curves):
        for epoch, value in enumerate(map(float, curve), 1):
            outcome.epochs.append(Epoch(seed, epoch, 100 - value, value))
        last = len(curve)
        for epoch in sorted({0, last // 2, last}):
            for layer in range(2):
                gone = epoch and np.isnan(curve[epoch - 1])
                maps = NAN if gone else similarity / 2 ** (epoch / last) + layer / 10
                row = (20.0, 0.25, maps, maps / 2, maps / 4, maps / 8, maps / 3, maps / 5)
                name = f"Conv_{layer}/kernel"
                outcome.layers.append(Layer(seed, epoch, name, norm * (layer + 3), *row))
    if kernels:
        generator = np.random.default_rng(0)
        for path in ("Conv_0/kernel", "Conv_1/kernel"):
            for when in ("start", "end"):
                weights = generator.normal(size=(3, 3, 2, 4)).astype(np.float32)
                outcome.kernels[f"{when}/{path}"] = weights
                maps = path.replace("kernel", "correlation")
                outcome.kernels[f"{when}/{maps}"] = np.corrcoef(weights.reshape(-1, 4).T)
    return outcome


def trial_of(method, strength=10.0, rate=0.02, split="test"):
    return Trial(split, method, 0.0 if method == "none" else strength, rate)


def outcomes_of(**named):
    """Of methods whose names have underscores for dashes."""
    names = {name.replace("_", "-"): values for name, values in named.items()}
    return {trial_of(name): final(values) for name, values in names.items()}
