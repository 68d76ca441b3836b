"""Which form tells, of two kernels, how alike their feature maps are on real images?

Trains small CNNs with batch normalization, and takes their second conv layer, with random
kernels and with trained ones. For each form: Spearman's rank correlation, over all pairs
of the layer, between what it says of the two kernels and the absolute correlation of
their maps of test images, before the activation and after it.

    TFDS_DATA_DIR=... python -m experiments.predictors

takes two minutes on 2 CPU cores.
"""

import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from scipy import stats

import convsim_jax as cs
from experiments import command_line, options
from experiments.command_line import check_least, unset
from experiments.compare.settings import CIFAR
from experiments.data.open import open_source
from experiments.fit.build import build_engine, build_feed
from experiments.fit.epochs import begin, fit
from experiments.fit.optimizer import Factors
from experiments.interventions import intervention
from experiments.losses import CORRELATION
from experiments.models.own import feature_maps
from experiments.progress import stderr, tracked
from experiments.run_folder import claim, fresh, no_stub, versions, write_csv, writing
from experiments.table import aligned

IMAGES = 256  # that maps are measured on; as many others tell the covariance
LAYER = "Conv_1"
WHEN = ("random", "trained")
WHERE = ("before the activation", "after it")


@dataclass(frozen=True)
class Config:
    """How many networks, of what, and where the results go."""

    dataset: str = "cifar10"  # As in `experiments.train`.
    train_size: int = 5000  # Training images.
    epochs: int = 8  # Epochs of training.
    seeds: int = 3  # Networks.
    decay: float = 0.1  # Weight decay of the convs.
    data_dir: options.DataDir = None  # Folder of prepared TFDS datasets.
    # Run folder, new or empty.
    output: Annotated[Path | None, unset("PATH", "runs/predictors-<time>")] = None


def forms(kernel: np.ndarray, maps: np.ndarray) -> dict[str, np.ndarray]:
    """What each form says of every two kernels, `(M, M)`.

    The kernel is `(height, width, C, M)`; the maps, `(..., M)`, are of other images than
    those to be told of: the inner product of two of them is that of the kernels in the
    metric of the images' own covariance.
    """
    height, width, C, M = kernel.shape
    spectra = np.fft.fft2(kernel, (2 * height - 1, 2 * width - 1), (0, 1))
    spectra = spectra.reshape(-1, C, M)
    power = np.sum(np.abs(spectra) ** 2, 1)
    between = np.einsum("fci,fcj->fij", spectra.conj(), spectra)
    taps = np.array(list(product(range(height), range(width))), float)
    distance = np.linalg.norm(taps[:, None] - taps, axis=-1)
    columns = kernel.reshape(len(taps), C * M)
    seen = (np.linalg.cholesky(CORRELATION**distance).T @ columns).reshape(-1, M)
    return {
        "the paper's CS": np.asarray(cs.similarity_matrix(kernel)),
        "CS_cross, scale-free": scaled(power.T @ power),
        "CS_sym, scale-free": scaled(power.T @ power + np.sum(between**2, 0).real),
        "kernel cosine": np.abs(scaled(np.sum(between, 0).real)),
        "image metric": np.abs(scaled(seen.T @ seen)),
        "the input's own S": np.abs(correlations(maps)),
    }


def scaled(matrix: np.ndarray) -> np.ndarray:
    """A matrix of inner products, with ones on its diagonal."""
    norms = np.sqrt(np.diagonal(matrix))
    return matrix / (norms[:, None] * norms)


def correlations(maps: np.ndarray) -> np.ndarray:
    """Of every two channels, over images and positions."""
    return np.corrcoef(maps.reshape(-1, maps.shape[-1]), rowvar=False)


def rank_correlation(said: np.ndarray, measured: np.ndarray) -> float:
    """Spearman's, over all pairs of channels, without those of a constant map."""
    pairs = np.triu(np.isfinite(measured), 1)
    return float(stats.spearmanr(said[pairs], measured[pairs]).statistic)


def measured(config: Config) -> dict[tuple[str, str, str], list[float]]:
    """The correlation of every seed, by form, `WHEN` and `WHERE`."""
    training = replace(
        CIFAR,
        **{name: getattr(config, name) for name in ("dataset", "train_size", "epochs")},
        learning_rate=0.01,
    )
    source = open_source(config.dataset, data_dir=config.data_dir)
    feed = build_feed(training, source, tracked(stderr()))
    method = intervention("decay")
    engine = build_engine(training, method, feed, seeds=config.seeds)
    factors = Factors(training.learning_rate, config.decay)
    state = begin(engine, feed, method, factors)
    networks = {"random": jax.device_get(state.network.variables)}
    for last, _ in fit(engine, feed, state, factors, epochs=config.epochs, scored="test"):
        state = last
    networks["trained"] = jax.device_get(state.chosen.variables)
    test = np.asarray(next(feed.score("test")).images)[:IMAGES]
    images = [(x - feed.mean) / feed.deviation for x in (feed.sample[:IMAGES], test)]
    found: dict[tuple[str, str, str], list[float]] = {}
    for when, seed in product(WHEN, range(config.seeds)):
        one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], networks[when])
        seen, new = (feature_maps(engine.model, one, x)[LAYER] for x in images)
        said = forms(np.asarray(one["params"][LAYER]["kernel"]), np.asarray(seen[0]))
        for where, maps in zip(WHERE, new, strict=True):
            alike = np.abs(correlations(np.asarray(maps)))
            for form, matrix in said.items():
                told = rank_correlation(matrix, alike)
                found.setdefault((form, when, where), []).append(told)
    return found


def main(config: Config) -> None:
    """Trains, prints the table and writes the run folder."""
    check_least(config, seeds=1, epochs=1, train_size=1, decay=0)
    started = time.perf_counter()
    output = config.output or fresh(Path(time.strftime("runs/predictors-%Y%m%d-%H%M%S")))
    given: dict[str, Any] = {k: v for k, v in vars(config).items() if k != "output"}
    claim(output, given | {"data_dir": None}, {"versions": versions("numpy", "scipy")})
    with no_stub(output):
        found = measured(config)
    header = [f"{when},\n{where}" for when, where in product(WHEN, WHERE)]
    rows = [
        [form, *(f"{np.mean(found[form, *x]):.2f}" for x in product(WHEN, WHERE))]
        for form in dict.fromkeys(form for form, _, _ in found)
    ]
    print(aligned(["Spearman's correlation, mean of the seeds", *header], rows))
    lines = [
        [*key, seed, value]
        for key, values in found.items()
        for seed, value in enumerate(values)
    ]
    with writing(output):
        columns = ["form", "kernels", "maps", "seed", "correlation"]
        write_csv(output / "predictors.csv", columns, lines)
    print(f"{time.perf_counter() - started:.0f} s. Results: {output}")


if __name__ == "__main__":
    prog = "python -m experiments.predictors"
    command_line.leave(command_line.run(main, Config, prog=prog, description=__doc__))
