"""What the theory experiments found, beside the reference: statistics, tables, files."""

import itertools
import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.box
from numpy.typing import ArrayLike
from rich.console import Group
from rich.table import Table
from scipy import stats

import convsim_jax as cs
from experiments.run_folder import write_csv, write_json
from experiments.theory.descent import TRAINED_PAIRS, Descent


class Reference(NamedTuple):
    """A mean over seeds, and its standard deviation where it is known."""

    mean: float
    deviation: float | None = None


# Belmekki et al., arXiv 2411.03226, sections 4.1 and 4.3: the settings of the authors'
# scripts, measured over 5,000 seeds and rounded to three digits.
REFERENCE_SEEDS = 5000
REFERENCE_DIGIT = 0.001
REFERENCE_SETTINGS = {
    "steps": 300,
    "rounds": 10,
    "taps": 9,
    "signal_length": 64,
    "cosine_learning_rate": 0.1,
    "learning_rate": 0.01,
}
REFERENCES = {
    ("4.1", "kernels' cosine"): Reference(1.000, 0.000),
    ("4.1", "feature maps"): Reference(0.081, 0.032),
    ("4.1", "after ReLU"): Reference(0.080),
    ("4.1", "after ELU"): Reference(0.081),
    ("4.1", "after LeakyReLU"): Reference(0.080),
    ("4.3", "kernels' cosine"): Reference(0.936, 0.062),
    ("4.3", "feature maps"): Reference(0.846, 0.169),
    ("4.3", "after ReLU"): Reference(0.408, 0.058),
    ("4.3", "after ELU"): Reference(0.837, 0.169),
    ("4.3", "after LeakyReLU"): Reference(0.413, 0.059),
}
# Section 4.4 makes a claim instead: CS falls for every pair of kernels, trained or not.

TITLES = {
    "4.1": "4.1: the squared cosine of two kernels is minimised",
    "4.3": "4.3: Convolutional Similarity (CS) of two kernels is minimised",
}

# With this bound on ten figures, at most one run in 37 finds a difference by chance.
MAX_Z = 3.0


class Reduction(NamedTuple):
    """A relative reduction over seeds, beside its reference."""

    section: str
    quantity: str
    seeds: int
    mean: float
    deviation: float
    low: float
    """Lower end of the 95 % interval of the mean."""
    high: float
    reference: float
    reference_deviation: float | None
    z: float | None
    """Difference in units of its standard error; None under other settings."""
    agrees: bool | None
    """Whether `|z| <= MAX_Z`."""


class PairChange(NamedTuple):
    """CS of two of four kernels over seeds, before and after training."""

    pair: str
    trained: bool
    seeds: int
    before: float
    before_deviation: float
    after: float
    after_deviation: float
    fell: float
    """Share of the seeds in which CS fell."""
    scale_free_before: float
    """Mean of `CS(i,j) / sqrt(CS(i,i) CS(j,j))`: shrinking alone does not lower it."""
    scale_free_after: float


def other_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of `config` that are not the reference's."""
    return {
        name: config[name]
        for name, value in REFERENCE_SETTINGS.items()
        if config[name] != value
    }


def compare(
    section: str, quantity: str, values: ArrayLike, *, comparable: bool = True
) -> Reduction:
    """Mean of `values`, shape `(seeds,)`, with its sampling error, and the reference.

    Both means are samples, and the reference is rounded: the difference has a standard
    error of `sqrt(s^2 / n + s_ref^2 / n_ref + digit^2 / 12)`. Where the reference gives
    no deviation, that of `values` stands in.
    """
    sample = np.asarray(values, np.float64)
    reference = REFERENCES[section, quantity]
    seeds, mean, deviation = sample.size, float(sample.mean()), float(sample.std(ddof=1))
    spread = deviation if reference.deviation is None else reference.deviation
    sampling_error = deviation / math.sqrt(seeds)
    margin = float(stats.t.ppf(0.975, seeds - 1)) * sampling_error
    standard_error = math.hypot(
        sampling_error,
        spread / math.sqrt(REFERENCE_SEEDS),
        REFERENCE_DIGIT / math.sqrt(12),
    )
    z = (mean - reference.mean) / standard_error if comparable else None
    return Reduction(
        section=section,
        quantity=quantity,
        seeds=seeds,
        mean=mean,
        deviation=deviation,
        low=mean - margin,
        high=mean + margin,
        reference=reference.mean,
        reference_deviation=reference.deviation,
        z=z,
        agrees=None if z is None else abs(z) <= MAX_Z,
    )


def pair_changes(matrices: np.ndarray) -> list[PairChange]:
    """One line a pair of `matrices`, CS of shape `(seeds, rounds + 1, M, M)`."""
    ends = np.asarray(matrices[:, [0, -1]], np.float64)
    norms = np.sqrt(np.diagonal(ends, axis1=-2, axis2=-1))
    product = norms[..., :, None] * norms[..., None, :]
    cosines = np.divide(ends, product, out=np.zeros_like(ends), where=product > 0)
    scale_free = cosines.mean(0)

    def change(i: int, j: int) -> PairChange:
        before, after = ends[..., i, j].T
        return PairChange(
            pair=f"({i + 1}, {j + 1})",
            trained=(i, j) in TRAINED_PAIRS,
            seeds=len(ends),
            before=float(before.mean()),
            before_deviation=float(before.std(ddof=1)),
            after=float(after.mean()),
            after_deviation=float(after.std(ddof=1)),
            fell=float((after < before).mean()),
            scale_free_before=float(scale_free[0, i, j]),
            scale_free_after=float(scale_free[1, i, j]),
        )

    return [change(*pair) for pair in itertools.combinations(range(ends.shape[-1]), 2)]


class Report(NamedTuple):
    """Everything that a run found; Rich prints it as tables."""

    config: Mapping[str, Any]
    reductions: list[Reduction]
    pairs: list[PairChange]

    def __rich__(self) -> Group:
        """Tables, then verdicts."""
        return Group(
            *(_reductions_table(section, self.reductions) for section in TITLES),
            _pairs_table(self.pairs),
            *self._verdicts(),
        )

    def _verdicts(self) -> Iterator[str]:
        if other := other_settings(self.config):
            settings = ", ".join(f"{name} {value}" for name, value in other.items())
            yield f"Not compared: the reference has other settings than {settings}."
        else:
            agree = sum(bool(row.agrees) for row in self.reductions)
            yield (
                f"{agree} of {len(self.reductions)} reductions agree with the reference "
                f"(|z| <= {MAX_Z:.0f}; z: difference in standard errors)."
            )
        fall = sum(row.after < row.before for row in self.pairs)
        yield (
            f"4.4: mean CS falls for {fall} of {len(self.pairs)} pairs, in the paper for "
            f"all: {'agrees' if fall == len(self.pairs) else 'DIFFERS'}."
        )
        total = self.config["seeds"]
        seeds = {row.section: row.seeds for row in self.reductions}
        for section, left in (seeds | {"4.4": self.pairs[0].seeds}).items():
            if diverged := total - left:
                yield f"{section}: {diverged:,} of {total:,} seeds diverged: left out."

    def write(self, folder: Path) -> None:
        """Writes results.json, reductions.csv and pairs.csv."""
        packages = ("jax", "jaxlib", "numpy", "scipy")
        results = {
            "config": self.config,
            "versions": {
                "python": platform.python_version(),
                "convsim_jax": cs.__version__,
                **{package: version(package) for package in packages},
            },
            "reductions": self.reductions,
            "pairs": self.pairs,
        }
        write_json(folder / "results.json", results)
        for name, rows in (("reductions", self.reductions), ("pairs", self.pairs)):
            write_csv(folder / f"{name}.csv", rows[0]._fields, rows)


def make_report(
    descents: Mapping[str, Descent], matrices: np.ndarray, config: Mapping[str, Any]
) -> Report:
    """The report of sections 4.1 and 4.3, `descents`, and of 4.4, `matrices`."""
    comparable = not other_settings(config)
    return Report(
        config,
        [
            compare(
                section,
                quantity,
                descents[section].reductions[quantity],
                comparable=comparable,
            )
            for section, quantity in REFERENCES
        ],
        pair_changes(matrices),
    )


def _reductions_table(section: str, rows: Iterable[Reduction]) -> Table:
    table = _table(TITLES[section])
    table.add_column("Reduction of")
    for heading in ("Mean ± s.d.", "95 % of mean", "Reference", "z"):
        table.add_column(heading, justify="right")
    table.add_column("Verdict")
    verdicts = {True: "agrees", False: "DIFFERS", None: "-"}
    for row in rows:
        if row.section == section:
            spread = row.reference_deviation
            tail = " " * 8 if spread is None else f" ± {spread:.3f}"
            table.add_row(
                row.quantity,
                f"{row.mean:z.3f} ± {row.deviation:.3f}",
                f"{row.low:z.3f} to {row.high:z.3f}",
                f"{row.reference:.3f}{tail}",
                "-" if row.z is None else f"{row.z:+z.1f}",
                verdicts[row.agrees],
            )
    return table


def _pairs_table(rows: Iterable[PairChange]) -> Table:
    table = _table("4.4: CS of four kernels, three pairs trained in turn")
    for heading in ("Pair", "Trained"):
        table.add_column(heading)
    for heading in ("CS before", "CS after", "Falls in", "Scale-free CS"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.pair,
            "yes" if row.trained else "no",
            f"{row.before:.2f} ± {row.before_deviation:.2f}",
            f"{row.after:.2f} ± {row.after_deviation:.2f}",
            f"{row.fell:.2%}",
            f"{row.scale_free_before:.3f} to {row.scale_free_after:.3f}",
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
