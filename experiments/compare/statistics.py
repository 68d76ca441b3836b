"""What results say: differences of paired seeds, and how sure they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.compare.plan import Outcomes, final
from experiments.compare.results import Layer, Outcome, Trial
from experiments.compare.settings import BASELINE
from experiments.interventions import INTERVENTIONS

# Of all differences that are called clear, the share that chance may have made.
FALSE_DISCOVERIES = 0.05


def mean_of(name: str) -> Callable[[Sequence[Layer]], float]:
    """The mean of a column of `layers.csv` over the layers of a network."""
    return lambda rows: float(np.mean([getattr(row, name) for row in rows]))


# Of one network at one moment, of its layers.
MEASURES: dict[str, Callable[[Sequence[Layer]], float]] = {
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
        seeds: all of them.
        diverged_at: epoch, counted from 1; 0 if a seed did not.
        accuracy: percentage; NaN of a seed that diverged.
        gain: accuracy less the baseline's, of the seeds that finished in both.
        chance: probability of a mean this far from 0 if there were no difference, by the
            paired t-test; adjusted for the number of interventions by Benjamini and
            Hochberg; NaN where it cannot be told.
        beyond: accuracy less its control's, likewise; empty without one.
        beyond_chance: as `chance`, of that difference, among all that have a control.
        epochs_to: epochs to `target`; NaN of a seed that does not reach it.
        target: the accuracy that the baseline has after half of its epochs; NaN without.
        sooner: epochs fewer than the baseline's, of the seeds that reach it in both.
        sooner_beyond: fewer than its control's, likewise.
        curve: accuracy after each epoch, `(seeds, epochs)`; of validation images, if any.
        start: each of `MEASURES` before training.
        end: after it.
        seconds: of training, of all seeds.
    """

    trial: Trial
    outcome: Outcome
    seeds: list[int]
    diverged_at: np.ndarray
    accuracy: np.ndarray
    gain: np.ndarray
    chance: float
    beyond: np.ndarray
    beyond_chance: float
    epochs_to: np.ndarray
    target: float
    sooner: np.ndarray
    sooner_beyond: np.ndarray
    curve: np.ndarray
    start: dict[str, np.ndarray]
    end: dict[str, np.ndarray]
    seconds: float

    @property
    def finished(self) -> np.ndarray:
        """Which seeds did not diverge."""
        return np.isfinite(self.accuracy)

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
    outcomes: Outcomes, split: str = "test", baseline: str = BASELINE
) -> dict[str, Finding]:
    """By intervention, of all that is reported."""
    trials = final(outcomes, split)
    known = {name: outcomes[trial] for name, trial in trials.items()}
    epochs = max((len_of(outcome) for outcome in known.values()), default=0)
    curves = {name: curve_of(outcome, epochs) for name, outcome in known.items()}
    nothing = np.full(1, np.nan)
    target = np.nan
    if baseline in known and epochs:
        target = mean_of_known(curves[baseline][:, max(epochs // 2, 1) - 1])
    speed = {
        name: np.array([epochs_to(one, target) for one in curve])
        for name, curve in curves.items()
    }
    found = {}
    for name, outcome in known.items():
        accuracy = outcome.accuracy
        control = INTERVENTIONS[name].control
        theirs = known[baseline].accuracy if baseline in known else nothing
        beside = known[control].accuracy if control in known else nothing
        gain, beyond = paired(accuracy, theirs), paired(accuracy, beside)
        found[name] = Finding(
            trial=trials[name],
            outcome=outcome,
            seeds=[score.seed for score in outcome.scores],
            diverged_at=np.array([score.diverged_at for score in outcome.scores]),
            accuracy=accuracy,
            gain=gain,
            chance=chance_of(gain),
            beyond=beyond,
            beyond_chance=chance_of(beyond),
            epochs_to=speed[name],
            target=target,
            sooner=paired(speed.get(baseline, nothing), speed[name]),
            sooner_beyond=paired(speed.get(control or "", nothing), speed[name]),
            curve=curves[name],
            start=measures_of(outcome, min),
            end=measures_of(outcome, max),
            seconds=outcome.scores[0].seconds,
        )
    chances = adjusted({name: one.chance for name, one in found.items()})
    others = adjusted({name: one.beyond_chance for name, one in found.items()})
    return {
        name: one._replace(chance=chances[name], beyond_chance=others[name])
        for name, one in found.items()
    }


def difference(one: Finding, other: Finding) -> np.ndarray:
    """Accuracy of one intervention less another's, of equal seeds."""
    return paired(one.accuracy, other.accuracy)


def adjusted(chances: Mapping[str, float]) -> dict[str, float]:
    """Probabilities adjusted for their number; NaN stays."""
    names = [name for name in chances if np.isfinite(chances[name])]
    known = [chances[name] for name in names]
    values = stats.false_discovery_control(known) if known else ()
    return dict(chances) | dict(zip(names, map(float, values), strict=True))


def paired(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences seed by seed, where both are known."""
    difference = ours - theirs
    return difference[np.isfinite(difference)]


def chance_of(differences: np.ndarray) -> float:
    """The two-sided probability of a mean that far from 0; NaN if all are equal.

    >>> round(chance_of(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    if len(differences) < 2 or not np.ptp(differences):
        return np.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def len_of(outcome: Outcome) -> int:
    """The last epoch that is known."""
    return max((row.epoch for row in outcome.epochs), default=0)


def curve_of(outcome: Outcome, epochs: int) -> np.ndarray:
    """Accuracy after each epoch, `(seeds, epochs)`; NaN where it is not known."""
    seeds = [score.seed for score in outcome.scores]
    table = np.full((len(seeds), epochs), np.nan)
    for row in outcome.epochs:
        table[seeds.index(row.seed), row.epoch - 1] = row.accuracy
    return table


def epochs_to(curve: np.ndarray, target: float) -> float:
    """Epochs until a curve first reaches a target, between epochs along a line.

    It starts from 0 before the first epoch; NaN if it never gets there.

    >>> epochs_to(np.array([40.0, 50.0, 60.0]), 55.0), epochs_to(np.array([40.0]), 20.0)
    (2.5, 0.5)
    """
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return np.nan
    epoch = reached[0]
    before = curve[epoch - 1] if epoch else 0.0
    return float(epoch + (target - before) / (curve[epoch] - before))


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
