"""What results say: differences of paired seeds, and how sure they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.compare.plan import Outcomes, final
from experiments.compare.results import Layer, Outcome, Trial
from experiments.interval import ENOUGH, mean
from experiments.interventions import INTERVENTIONS

# What is scored on the test images besides accuracy: columns of `trials.csv`.
OTHERS = ("calibration", "noise", "blur")
# Of fewer methods no correlation is told.
ENOUGH_METHODS = 6
# Of all differences of a column that are called clear, the share that chance may make.
FALSE_DISCOVERIES = 0.05
Measure = Callable[[Sequence[Layer]], float]


def mean_of(name: str) -> Measure:
    """The mean of a column of `layers.csv` over the layers of a network."""
    return lambda rows: float(np.mean([getattr(row, name) for row in rows]))


# Of the layers of one network at one moment.
MEASURES: dict[str, Measure] = {
    "feature_map_similarity": mean_of("before"),
    "feature_map_similarity_activated": mean_of("after"),
    "feature_map_similarity_centered": mean_of("before_centered"),
    "feature_map_similarity_activated_centered": mean_of("after_centered"),
    "effective_maps": mean_of("effective_before"),
    "effective_maps_activated": mean_of("effective_after"),
    "kernel_similarity": mean_of("scale_free_loss"),
    "paper_loss": lambda rows: sum(row.paper_loss for row in rows),
    "norm": lambda rows: sum(row.norm**2 for row in rows) ** 0.5,
}


class Difference(NamedTuple):
    """From another method, seed by seed, where it is known of both."""

    values: np.ndarray
    # The probability of a mean this far from 0 if there were no difference, by the paired
    # t-test, adjusted by Benjamini and Hochberg; NaN where it cannot be told.
    chance: float = np.nan

    @property
    def clear(self) -> bool:
        """Whether it is more than chance would explain."""
        return self.chance < FALSE_DISCOVERIES


class Finding(NamedTuple):
    """What a method came to, beside the baseline; arrays are by seed."""

    name: str
    trial: Trial
    outcome: Outcome
    baseline: str
    at_end: bool  # whether its strength is the least or the largest that was tried
    rate_at_end: bool  # whether its learning rate is
    gain: Difference  # of accuracy, from the baseline
    beyond: Difference  # of accuracy, from its control, if it has one
    curve: np.ndarray  # accuracy, (seeds, epochs); of validation images, if there are any
    target: float  # the accuracy that the baseline has after half of its epochs
    epochs_to: np.ndarray  # the target; NaN of a seed that does not reach it
    sooner: Difference  # epochs fewer than the baseline's
    others: dict[str, np.ndarray]  # each of OTHERS
    apart: dict[str, Difference]  # of these, from the baseline
    start: dict[str, np.ndarray]  # each of MEASURES before training
    end: dict[str, np.ndarray]  # after it

    @property
    def seeds(self) -> list[int]:
        """By number."""
        return [score.seed for score in self.outcome.scores]

    @property
    def accuracy(self) -> np.ndarray:
        """Percentage; NaN of a seed that diverged."""
        return self.outcome.accuracy

    @property
    def finished(self) -> np.ndarray:
        """Which seeds did not diverge."""
        return np.isfinite(self.accuracy)

    @property
    def diverged_at(self) -> np.ndarray:
        """Epoch, counted from 1; 0 if a seed did not."""
        return np.array([score.diverged_at for score in self.outcome.scores])


Findings = Mapping[str, Finding]


def findings(
    outcomes: Outcomes, split: str = "test", baseline: str = "none"
) -> dict[str, Finding]:
    """By method, of all that is reported."""
    trials = final(outcomes, split)
    known = {name: outcomes[trial] for name, trial in trials.items()}
    accuracies = {name: by_seed(x, x.accuracy) for name, x in known.items()}
    epochs = max((row.epoch for x in known.values() for row in x.epochs), default=0)
    curves = {name: curve_of(outcome, epochs) for name, outcome in known.items()}
    target = np.nan
    if baseline in known and epochs:
        target = mean(curves[baseline][:, max(epochs // 2, 1) - 1])
    times = {name: epochs_to(curve, target) for name, curve in curves.items()}
    speeds = {name: by_seed(known[name], -times[name]) for name in known}
    controls = {name: INTERVENTIONS[name].control or "" for name in known}
    gains = adjusted({x: differences(accuracies, x, baseline) for x in known})
    beyond = adjusted({x: differences(accuracies, x, controls[x]) for x in known})
    others = {
        name: {x: np.array([getattr(row, x) for row in y.scores]) for x in OTHERS}
        for name, y in known.items()
    }
    apart = {}
    for column in OTHERS:
        values = {name: by_seed(y, others[name][column]) for name, y in known.items()}
        apart[column] = adjusted({x: differences(values, x, baseline) for x in known})
    return {
        name: Finding(
            name,
            trials[name],
            outcome,
            baseline,
            at_end(trials[name], outcomes),
            rate_at_end(trials[name], outcomes, baseline),
            gains[name],
            beyond[name],
            curves[name],
            target,
            times[name],
            Difference(differences(speeds, name, baseline)),
            others[name],
            {column: apart[column][name] for column in OTHERS},
            measures_of(outcome, min),
            measures_of(outcome, max),
        )
        for name, outcome in known.items()
    }


def at_end(trial: Trial, outcomes: Outcomes) -> bool:
    """Whether no strength beyond it was tried, here or where it was taken from."""
    tried = {other.strength for other in tries(outcomes, trial.method)}
    return is_end(trial.strength, tried or set(INTERVENTIONS[trial.method].tried))


def rate_at_end(trial: Trial, outcomes: Outcomes, baseline: str) -> bool:
    """Whether no learning rate beyond it was tried, of it or of what it began with.

    Muon's are its own.
    """
    one = INTERVENTIONS[trial.method]
    first = trial.method if one.tunes == "rate" else one.after or baseline
    names = {trial.method, first}
    rates = {other.learning_rate for other in tries(outcomes, *names)}
    return is_end(trial.learning_rate, rates)


def tries(outcomes: Outcomes, *methods: str) -> list[Trial]:
    """The trials that strengths and learning rates are chosen by."""
    return [x for x in outcomes if x.split == "validation" and x.method in methods]


def is_end(value: float, tried: set[float]) -> bool:
    """Whether it is the least or the largest of several."""
    return len(tried) > 1 and value in (min(tried), max(tried))


def by_seed(outcome: Outcome, values: np.ndarray) -> dict[int, float]:
    """Values of the seeds of an outcome."""
    return {row.seed: x for row, x in zip(outcome.scores, values, strict=True)}


def differences(
    values: Mapping[str, Mapping[int, float]], name: str, other: str
) -> np.ndarray:
    """Of two methods' values, by seed, where both are known.

    >>> differences({"a": {0: 3.0, 1: 2.0, 2: 1.0}, "b": {0: 1.0, 2: np.nan}}, "a", "b")
    array([2.])
    """
    theirs = values.get(other, {})
    apart = [x - theirs[seed] for seed, x in values[name].items() if seed in theirs]
    return np.array([x for x in apart if np.isfinite(x)])


def adjusted(apart: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """How sure differences are, adjusted for their number."""
    chances = {name: chance_of(values) for name, values in apart.items()}
    known = [name for name, chance in chances.items() if np.isfinite(chance)]
    if known:
        values = stats.false_discovery_control([chances[name] for name in known])
        chances |= dict(zip(known, map(float, values), strict=True))
    return {name: Difference(apart[name], chances[name]) for name in apart}


def chance_of(apart: np.ndarray) -> float:
    """The two-sided probability of a mean that far from 0.

    NaN of fewer than `ENOUGH`, and if all are equal but for rounding.

    >>> round(chance_of(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    if len(apart) < ENOUGH or np.allclose(apart, apart[0]):
        return np.nan
    return float(stats.ttest_1samp(apart, 0.0).pvalue)


class Correlation(NamedTuple):
    """Spearman's, over methods, and its 95 % interval: none, NaN, of 1 and -1.

    That is normal in `atanh r`, of the variance of Bonett and Wright (Psychometrika 65,
    2000), `(1 + r^2 / 2) / (n - 3)`.
    """

    value: float
    low: float
    high: float
    methods: int  # how many


def correlations(found: Findings) -> dict[tuple[str, str], Correlation]:
    """Of accuracy with each of `MEASURES`, before training and after it.

    The mean over the seeds of each method counts. Those are left out of which
    fewer than `ENOUGH_METHODS` are known.
    """
    known = {}
    for when in ("start", "end"):
        for name in MEASURES:
            points = []
            for one in found.values():
                measured = getattr(one, when).get(name)
                if measured is not None and one.finished.any():
                    values = (
                        mean(measured[one.finished]),
                        mean(one.accuracy[one.finished]),
                    )
                    if np.isfinite(values).all():
                        points.append(values)
            if len(points) >= ENOUGH_METHODS:
                ranks = stats.rankdata(np.array(points), axis=0)
                if np.ptp(ranks, axis=0).all():
                    value, n = float(np.corrcoef(ranks.T)[0, 1]), len(points)
                    reach = stats.norm.ppf(0.975) * np.sqrt((1 + value**2 / 2) / (n - 3))
                    middle = np.arctanh(value) if abs(value) < 1 - 1e-9 else np.nan
                    low, high = map(float, np.tanh([middle - reach, middle + reach]))
                    known[name, when] = Correlation(value, low, high, n)
    return known


def curve_of(outcome: Outcome, epochs: int) -> np.ndarray:
    """Accuracy after each epoch, `(seeds, epochs)`; NaN where it is not known."""
    seeds = [score.seed for score in outcome.scores]
    table = np.full((len(seeds), epochs), np.nan)
    for row in outcome.epochs:
        table[seeds.index(row.seed), row.epoch - 1] = row.accuracy
    return table


def epochs_to(curves: np.ndarray, target: float) -> np.ndarray:
    """Epochs until each curve first reaches a target, between epochs along a line.

    A curve starts from 0 before the first epoch; NaN if it never gets there.

    >>> epochs_to(np.array([[40.0, 50.0, 60.0], [30.0, 40.0, 50.0]]), 55.0)
    array([2.5, nan])
    """
    found = np.full(len(curves), np.nan)
    for place, curve in enumerate(curves):
        reached = np.flatnonzero(curve >= target)
        if len(reached):
            epoch = reached[0]
            before = curve[epoch - 1] if epoch else 0.0
            found[place] = epoch + (target - before) / (curve[epoch] - before)
    return found


def measures_of(
    outcome: Outcome, when: Callable[[Sequence[int]], int]
) -> dict[str, np.ndarray]:
    """Each of `MEASURES` by seed, at the first epoch or the last that was measured."""
    if not outcome.layers:
        return {}
    epoch = when([row.epoch for row in outcome.layers])
    networks: dict[int, list[Layer]] = {score.seed: [] for score in outcome.scores}
    for row in outcome.layers:
        if row.epoch == epoch:
            networks[row.seed].append(row)
    return {
        name: np.array([measure(rows) for rows in networks.values()])
        for name, measure in MEASURES.items()
    }
