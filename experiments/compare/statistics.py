"""What results say: differences of paired seeds, and how sure they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.compare.plan import Outcomes, final
from experiments.compare.results import Layer, Outcome, Trial
from experiments.interventions import INTERVENTIONS

# Of all differences that are called clear, the share that chance may have made.
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


class Finding(NamedTuple):
    """What an intervention came to, beside the baseline; arrays are by seed.

    Attributes:
        trial: see there.
        outcome: its rows.
        baseline: what it is compared with.
        accuracy: percentage; NaN of a seed that diverged.
        gain: accuracy less the baseline's, of the seeds that finished in both.
        chance: probability of a mean this far from 0 if there were no difference, by the
            paired t-test; adjusted for the number of interventions by Benjamini and
            Hochberg; NaN where it cannot be told.
        beyond: accuracy less its control's, likewise; empty without one.
        beyond_chance: as `chance`, of that difference, among all that have a control.
        curve: accuracy after each epoch, `(seeds, epochs)`; of validation images, if any.
        target: the accuracy that the baseline has after half of its epochs; NaN without.
        epochs_to: epochs to the target; NaN of a seed that does not reach it.
        sooner: epochs fewer than the baseline's, of the seeds that reach it in both.
        start: each of `MEASURES` before training.
        end: after it.
    """

    trial: Trial
    outcome: Outcome
    baseline: str
    accuracy: np.ndarray
    gain: np.ndarray
    chance: float
    beyond: np.ndarray
    beyond_chance: float
    curve: np.ndarray
    target: float
    epochs_to: np.ndarray
    sooner: np.ndarray
    start: dict[str, np.ndarray]
    end: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """Of the intervention."""
        return self.trial.treatment

    @property
    def finished(self) -> np.ndarray:
        """Which seeds did not diverge."""
        return np.isfinite(self.accuracy)

    @property
    def diverged_at(self) -> np.ndarray:
        """Epoch, counted from 1; 0 if a seed did not."""
        return np.array([score.diverged_at for score in self.outcome.scores])

    @property
    def clear(self) -> bool:
        """Whether the difference to the baseline is more than chance would explain."""
        return self.chance < FALSE_DISCOVERIES

    @property
    def clear_of_control(self) -> bool:
        """Whether the difference to its control is."""
        return self.beyond_chance < FALSE_DISCOVERIES


Findings = Mapping[str, Finding]


def findings(
    outcomes: Outcomes, split: str = "test", baseline: str = "none"
) -> dict[str, Finding]:
    """By intervention, of all that is reported."""
    trials = final(outcomes, split)
    known = {name: outcomes[trial] for name, trial in trials.items()}
    rows = [row for outcome in known.values() for row in outcome.epochs]
    epochs = max((row.epoch for row in rows), default=0)
    curves = {name: curve_of(outcome, epochs) for name, outcome in known.items()}
    target = np.nan
    if baseline in known and epochs:
        target = mean_of_known(curves[baseline][:, max(epochs // 2, 1) - 1])
    found = {}
    for name, outcome in known.items():
        gain = paired(outcome, known.get(baseline))
        beyond = paired(outcome, known.get(INTERVENTIONS[name].control or ""))
        speed = {x: epochs_to(curves[x], target) for x in {name, baseline} & set(known)}
        apart = by_seed(known.get(baseline, outcome), speed.get(baseline, speed[name]))
        found[name] = Finding(
            trials[name],
            outcome,
            baseline,
            outcome.accuracy,
            gain,
            chance_of(gain),
            beyond,
            chance_of(beyond),
            curves[name],
            target,
            speed[name],
            differences(apart, by_seed(outcome, speed[name])),
            measures_of(outcome, min),
            measures_of(outcome, max),
        )
    chances = adjusted({name: one.chance for name, one in found.items()})
    others = adjusted({name: one.beyond_chance for name, one in found.items()})
    return {
        name: one._replace(chance=chances[name], beyond_chance=others[name])
        for name, one in found.items()
    }


def paired(ours: Outcome, theirs: Outcome | None) -> np.ndarray:
    """Accuracy less another's, of the seeds that finished in both."""
    if theirs is None:
        return np.empty(0)
    return differences(by_seed(ours, ours.accuracy), by_seed(theirs, theirs.accuracy))


def by_seed(outcome: Outcome, values: np.ndarray) -> dict[int, float]:
    """Values of the seeds of an outcome."""
    return {row.seed: x for row, x in zip(outcome.scores, values, strict=True)}


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> np.ndarray:
    """Seed by seed, where both are known.

    >>> differences({0: 3.0, 1: 2.0, 2: 1.0}, {0: 1.0, 2: float("nan")})
    array([2.])
    """
    apart = np.array([x - theirs[seed] for seed, x in ours.items() if seed in theirs])
    return apart[np.isfinite(apart)]


def adjusted(chances: Mapping[str, float]) -> dict[str, float]:
    """Probabilities adjusted for their number; NaN stays."""
    names = [name for name in chances if np.isfinite(chances[name])]
    known = [chances[name] for name in names]
    values = stats.false_discovery_control(known) if known else ()
    return dict(chances) | dict(zip(names, map(float, values), strict=True))


def chance_of(apart: np.ndarray) -> float:
    """The two-sided probability of a mean that far from 0; NaN if all are equal.

    >>> round(chance_of(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    if len(apart) < 2 or not np.ptp(apart):
        return np.nan
    return float(stats.ttest_1samp(apart, 0.0).pvalue)


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
    networks = [
        [row for row in outcome.layers if (row.seed, row.epoch) == (score.seed, epoch)]
        for score in outcome.scores
    ]
    return {
        name: np.array([measure(rows) for rows in networks])
        for name, measure in MEASURES.items()
    }


def mean_of_known(values: np.ndarray) -> float:
    """The mean of what is finite; NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
