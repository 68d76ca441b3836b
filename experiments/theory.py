"""The theory of Convolutional Similarity, over thousands of seeds.

Repeats sections 4.1, 4.3 and 4.4 of Belmekki et al., arXiv 2411.03226, on random
kernels of one channel, and asks each time whether the feature maps become less alike:

* 4.1 minimises the squared cosine of two kernels (kernel orthogonality);
* 4.3 minimises the Convolutional Similarity (CS) of two kernels;
* 4.4 minimises the CS of the pairs (1, 2), (2, 3), (3, 4) of four kernels, in turn.

Kernels and signals are uniform on [0, 1). The figures stand beside those of the authors'
scripts, whose settings are the defaults.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

import convsim_jax as cs
from experiments import command_line
from experiments.command_line import check_least, check_most, check_positive, unset
from experiments.interval import interval
from experiments.run_folder import (
    claim,
    fresh,
    no_stub,
    versions,
    write_csv,
    write_json,
    writing,
)
from experiments.table import aligned

TITLES = {
    "4.1": "4.1: kernels made orthogonal (squared cosine minimised)",
    "4.3": "4.3: Convolutional Similarity (CS) minimised",
    "4.4": "4.4: CS of four kernels, three pairs trained in turn",
}
COLORS = {"4.1": "#e08214", "4.3": "#2166ac"}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "feature maps": lambda maps: maps,
    "after ReLU": jax.nn.relu,
    "after ELU": jax.nn.elu,
    "after LeakyReLU": jax.nn.leaky_relu,
}
PAIRS = tuple(itertools.combinations(range(4), 2))
TRAINED_PAIRS = ((0, 1), (1, 2), (2, 3))

# The authors' scripts at the default settings, over 5,000 seeds: of each relative
# reduction the mean and, where it is known, the standard deviation, to three digits.
REFERENCE_SEEDS = 5000
QUANTITIES = ("kernels' cosine", *ACTIVATIONS)
MEANS = {
    "4.1": (1.000, 0.081, 0.080, 0.081, 0.080),
    "4.3": (0.936, 0.846, 0.408, 0.837, 0.413),
}
DEVIATIONS: dict[str, tuple[float | None, ...]] = {
    "4.1": (0.000, 0.032, None, None, None),
    "4.3": (0.062, 0.169, 0.058, 0.169, 0.059),
}
MAX_VALUES = 2**26  # of one curve over all seeds: about 2 GiB of memory in all


@dataclass(frozen=True)
class Config:
    """How many seeds, of what, and where the results go."""

    seeds: int = 5000  # Random draws of kernels and signal.
    steps: int = 300  # SGD steps of sections 4.1 and 4.3.
    rounds: int = 10  # Rounds of section 4.4: one SGD step on every trained pair.
    taps: int = 9  # Length of a kernel.
    signal_length: int = 64  # Length of the input signal.
    cosine_learning_rate: float = 0.1  # Of section 4.1, on the kernels' squared cosine.
    learning_rate: float = 0.01  # Of sections 4.3 and 4.4, on Convolutional Similarity.
    first_seed: int = 0  # The first seed; the others follow it.
    # Run folder, new or empty.
    output: Annotated[Path | None, unset("PATH", "runs/theory-<time>")] = None

    def check(self) -> None:
        """Raises a `ValueError` that names the first option out of range."""
        check_least(self, seeds=2, steps=1, rounds=1, taps=1, first_seed=0)
        check_least(self, signal_length=self.taps)
        check_positive(self, "cosine_learning_rate", "learning_rate")
        check_most(self, seeds=MAX_VALUES // max(self.steps, 16 * self.rounds))


class Descent(NamedTuple):
    """Two kernels under SGD. Over seeds, every array has one more axis in front."""

    loss: jax.Array  # after 0, 1, ... steps
    similarity: jax.Array  # |cosine| of the two feature maps without activation, then
    # `(before - after) / before` of the kernels' |cosine| and, for each activation,
    # of the maps' against the first ones without activation.
    reductions: dict[str, jax.Array]


def valid_maps(kernel: jax.Array, signal: jax.Array) -> jax.Array:
    """Feature maps `F_i[t] = sum_n K_i[n] X[t + n]` where all of the kernel is inside.

    Kernel `(N, 1, M)` and signal `(T,)` give `(T - N + 1, M)`:

    >>> kernel = jnp.array([[1.0, 0.0], [2.0, -1.0]])[:, None]
    >>> valid_maps(kernel, jnp.array([1.0, 2.0, 3.0])).tolist()
    [[5.0, -2.0], [8.0, -3.0]]
    """
    # Shifted products, which XLA fuses over the seeds: a product with the matrix of the
    # signal's windows took seven times as long on a CPU.
    length = signal.size - len(kernel) + 1
    shifted = [signal[n : n + length, None] * tap for n, tap in enumerate(kernel)]
    return jnp.sum(jnp.stack(shifted), axis=0)


def cosine(kernel: jax.Array) -> jax.Array:
    """Cosine of two kernels, shape `(N, 1, 2)`."""
    return cs.kernel_cosine_similarity(kernel)[0, 1]


def pair_similarity(kernel: jax.Array) -> jax.Array:
    """CS of two kernels, shape `(N, 1, 2)`: the loss of sections 4.3 and 4.4."""
    # The one adjacent pair, a plain product; "all" would be a difference of squares.
    return cs.convolutional_similarity(kernel, pairs="adjacent")


def descend(
    kernel: jax.Array, signal: jax.Array, loss: Callable, rate: float, steps: int
) -> Descent:
    """Minimises `loss` of two kernels, `(N, 1, 2)`, by SGD with the learning rate `rate`.

    The similarity of two maps is their |cosine|: their inner product would fall by 99.8 %
    in section 4.3, with the kernels' norms alone; the reference says 84.6 %.
    """

    def similarity(kernel: jax.Array, activation: str = "feature maps") -> jax.Array:
        maps = ACTIVATIONS[activation](valid_maps(kernel, signal))
        return cs.feature_map_similarity(maps[None])

    def step(kernel: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        value, gradient = jax.value_and_grad(loss)(kernel)
        return kernel - rate * gradient, (value, similarity(kernel))

    last, (losses, similarities) = jax.lax.scan(step, kernel, length=steps)
    left = {"kernels' cosine": jnp.abs(cosine(last)) / jnp.abs(cosine(kernel))}
    left |= {name: similarity(last, name) / similarity(kernel) for name in ACTIVATIONS}
    return Descent(
        loss=jnp.append(losses, loss(last)),
        similarity=jnp.append(similarities, similarity(last)),
        reductions={name: 1 - ratio for name, ratio in left.items()},
    )


def train_pairs(kernel: jax.Array, rate: float, rounds: int) -> jax.Array:
    """SGD on the CS of `TRAINED_PAIRS` of `(N, 1, 4)`, one step on each pair in turn.

    The CS matrices after 0, 1, ..., rounds rounds, `(rounds + 1, 4, 4)`.
    """

    def one_round(kernel: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        before = cs.similarity_matrix(kernel)
        for i, j in TRAINED_PAIRS:
            gradient = jax.grad(pair_similarity)(kernel[..., i : j + 1])  # neighbours
            kernel = kernel.at[..., i : j + 1].add(-rate * gradient)
        return kernel, before

    last, matrices = jax.lax.scan(one_round, kernel, length=rounds)
    return jnp.concatenate([matrices, cs.similarity_matrix(last)[None]])


def over_seeds(experiment: Callable, config: Config, section: str, kernels: int) -> Any:
    """Runs `experiment(kernel, signal)` on the draws of all seeds in one program.

    Its results get an axis of seeds in front. Seeds that diverge are left out; a
    `ValueError` where fewer than two are left.
    """

    def one(seed: jax.Array) -> Any:
        kernel_key, signal_key = jax.random.split(jax.random.key(seed))
        kernel = jax.random.uniform(kernel_key, (config.taps, 1, kernels))
        return experiment(kernel, jax.random.uniform(signal_key, (config.signal_length,)))

    seeds = config.first_seed + np.arange(config.seeds, dtype=np.uint32)
    results = jax.device_get(jax.jit(jax.vmap(one))(seeds))
    leaves = [leaf.reshape(config.seeds, -1) for leaf in jax.tree.leaves(results)]
    finite = np.isfinite(np.concatenate(leaves, axis=1)).all(axis=1)
    if diverged := config.seeds - int(finite.sum()):
        message = f"section {section} diverged in {diverged} of {config.seeds} seeds"
        if config.seeds - diverged < 2:
            raise ValueError(f"{message}: lower its learning rate")
        print(f"{message}: left out")
    return jax.tree.map(lambda leaf: leaf[finite], results)


def two_kernels(config: Config) -> dict[str, Descent]:
    """Sections 4.1 and 4.3, on the same kernels and signals."""
    losses: dict[str, tuple[Callable, float]] = {
        "4.1": (lambda kernel: cosine(kernel) ** 2, config.cosine_learning_rate),
        "4.3": (pair_similarity, config.learning_rate),
    }
    return {
        section: over_seeds(
            partial(descend, loss=loss, rate=rate, steps=config.steps), config, section, 2
        )
        for section, (loss, rate) in losses.items()
    }


def four_kernels(config: Config) -> np.ndarray:
    """Section 4.4: CS matrices, shape `(seeds, rounds + 1, 4, 4)`."""

    def one(kernel: jax.Array, _: jax.Array) -> jax.Array:
        return train_pairs(kernel, config.learning_rate, config.rounds)

    return over_seeds(one, config, "4.4", kernels=4)


def reduction_row(section: str, quantity: str, values: ArrayLike) -> dict[str, Any]:
    """Mean of `values`, shape `(seeds,)`, with its 95 % interval, and the reference.

    `z` is the difference of the two in standard errors: both are sampled, and the
    reference is rounded. Where it gives no deviation, that of `values` stands in.
    """
    sample = np.asarray(values, np.float64)
    (mean, reach), deviation = interval(sample), float(sample.std(ddof=1))
    index = QUANTITIES.index(quantity)
    reference, spread = MEANS[section][index], DEVIATIONS[section][index]
    error = math.hypot(
        deviation / math.sqrt(sample.size),
        (deviation if spread is None else spread) / math.sqrt(REFERENCE_SEEDS),
        0.001 / math.sqrt(12),
    )
    return {
        "section": section,
        "quantity": quantity,
        "seeds": sample.size,
        "mean": mean,
        "deviation": deviation,
        "low": mean - reach,
        "high": mean + reach,
        "reference": reference,
        "reference_deviation": spread,
        "z": (mean - reference) / error,
    }


def pair_row(pair: tuple[int, int], matrices: np.ndarray) -> dict[str, Any]:
    """One pair of `matrices`, CS of shape `(seeds, rounds + 1, M, M)`, over seeds.

    The scale-free `CS(i,j) / sqrt(CS(i,i) CS(j,j))` does not fall by shrinking alone.
    """
    i, j = pair
    ends = matrices[:, [0, -1]].astype(np.float64)
    between, norms = ends[..., i, j], np.sqrt(ends[..., i, i] * ends[..., j, j])
    free = np.divide(between, norms, out=np.zeros_like(norms), where=norms > 0).mean(0)
    return {
        "pair": f"({i + 1}, {j + 1})",
        "trained": pair in TRAINED_PAIRS,
        "seeds": len(matrices),
        "before": between[:, 0].mean(),
        "before_deviation": between[:, 0].std(ddof=1),
        "after": between[:, 1].mean(),
        "after_deviation": between[:, 1].std(ddof=1),
        "fell": (between[:, 1] < between[:, 0]).mean(),
        "scale_free_before": free[0],
        "scale_free_after": free[1],
    }


def table(title: str, rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Some columns of the rows."""
    values = [[row[name] for name in columns] for row in rows]
    cells = [[f"{v:z.3f}" if isinstance(v, float) else str(v) for v in r] for r in values]
    return f"\n{title}\n{aligned(columns, cells)}"


def plot_reductions(descents: dict[str, Descent]) -> Figure:
    """Histograms over seeds: one panel for each activation, one colour a section."""
    figure = Figure(figsize=(8, 8), dpi=150, layout="constrained")
    panels = figure.subplots(4, sharex=True)
    for panel, name in zip(panels, ACTIVATIONS, strict=True):
        for section, descent in descents.items():
            values, color = np.asarray(descent.reductions[name]), COLORS[section]
            label = f"{section}: mean {values.mean():.0%}"
            share, bins = np.full(values.size, 1 / values.size), np.linspace(-0.2, 1, 97)
            panel.hist(values, bins, weights=share, color=color, alpha=0.75, label=label)
            panel.axvline(values.mean(), color=color, linestyle="--")
        panel.set(title=name, ylabel="share of seeds")
        panel.legend(frameon=False)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[-1].set_xlabel("reduction of the |cosine| of the maps, from no activation")
    figure.suptitle(f"{TITLES['4.1']}\n{TITLES['4.3']}")
    return figure


def plot_curves(descents: dict[str, Descent], matrices: np.ndarray) -> Figure:
    """What is minimised, what the feature maps do meanwhile, and four kernels' pairs."""
    figure = Figure(figsize=(13, 4.8), dpi=150, layout="constrained")
    losses, maps, pairs = figure.subplots(1, 3)
    means = matrices.mean(0, dtype=np.float64)
    for section, descent in descents.items():
        relative = np.maximum(descent.loss / descent.loss[:, :1], 1e-8)
        for panel, values in ((losses, relative), (maps, descent.similarity)):
            low, median, high = np.quantile(values, (0.05, 0.5, 0.95), axis=0)
            color, steps = COLORS[section], range(len(median))
            panel.plot(median, color=color, label=TITLES[section])
            panel.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
            panel.set(xlabel="SGD step", title="median, and the middle 90 % of seeds")
    for i, j in PAIRS:
        dash = "-" if (i, j) in TRAINED_PAIRS else "--"
        pairs.plot(means[:, i, j], dash, label=f"({i + 1}, {j + 1})")
    losses.set(ylabel="loss relative to step 0 (log scale, cut at 1e-8)", yscale="log")
    maps.set(ylabel="|cosine| of the two feature maps", ylim=(0, 1.02))
    pairs.set(ylabel="CS of a pair, mean over seeds (log scale)", yscale="log")
    pairs.set(title="4.4, dashed: pairs never trained", xlabel="round of three SGD steps")
    pairs.legend(frameon=False, ncols=2)
    handles = losses.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def main(config: Config) -> None:
    """Runs the three sections, prints the tables and writes the run folder."""
    config.check()
    started = time.perf_counter()
    output = config.output or fresh(Path(time.strftime("runs/theory-%Y%m%d-%H%M%S")))
    options, about = asdict(replace(config, output=None)), {"versions": versions("numpy")}
    claim(output, options, about)
    with no_stub(output):
        descents, matrices = two_kernels(config), four_kernels(config)
    pairs = [pair_row(pair, matrices) for pair in PAIRS]
    reductions = [
        reduction_row(section, name, descent.reductions[name])
        for section, descent in descents.items()
        for name in QUANTITIES
    ]
    shown = ["quantity", "mean", "deviation", "low", "high", "reference", "z"]
    for section in descents:
        of_section = [row for row in reductions if row["section"] == section]
        print(table(TITLES[section], of_section, shown))
    print("low, high: 95 % interval of the mean; z: difference in standard errors")
    shown = ["pair", "trained", "before", "after", "fell"]
    print(table(TITLES["4.4"], pairs, [*shown, "scale_free_before", "scale_free_after"]))
    with writing(output):
        for name, rows in {"reductions": reductions, "pairs": pairs}.items():
            write_csv(output / f"{name}.csv", [*rows[0]], [[*r.values()] for r in rows])
        plot_reductions(descents).savefig(output / "reductions.png")
        plot_curves(descents, matrices).savefig(output / "curves.png")
        results = {"config": options, **about, "reductions": reductions, "pairs": pairs}
        write_json(output / "results.json", results)
    print(f"{time.perf_counter() - started:.0f} s. Results and plots: {output}")


if __name__ == "__main__":
    prog = "python -m experiments.theory"
    command_line.leave(command_line.run(main, Config, prog=prog, description=__doc__))
