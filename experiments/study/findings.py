"""What the results of a setting say: differences to the baseline, seed by seed."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.interval import Interval, interval
from experiments.study.plan import BASELINE
from experiments.study.results import Outcome, Trial
from experiments.study.treatments import TREATMENTS

# Of all differences that are called clear, the share that chance may have made.
FALSE_DISCOVERIES = 0.05
SIMILARITIES = ("before", "after", "before_centered", "after_centered")


class Finding(NamedTuple):
    """What a treatment came to on the test images, beside the baseline.

    Attributes:
        trial: see there.
        accuracy: percentage, over the seeds that did not diverge.
        gain: accuracy less the baseline's of the same seed.
        chance: probability of a difference this large if there were none, by the paired
            t-test; adjusted for the number of treatments by Benjamini and Hochberg.
        beyond: accuracy less its control's; NaN without one.
        beyond_chance: as `chance`, of that difference, among all that have a control.
        sooner: epochs fewer to reach what the baseline has after half of its epochs, over
            the seeds that reach it.
        sooner_beyond: the same, fewer than its control's; NaN without one.
        finished: number of seeds that did not diverge, and of all.
        similarity: `(kind, moment)` to the mean feature-map similarity of all layers;
            kinds are `SIMILARITIES`; moments `"start"`, `"middle"` and `"end"`.
        change: the same less the baseline's of the same seed.
        norm: of all conv kernels before training.
        of_seeds: accuracy of each seed; NaN if it diverged.
    """

    trial: Trial
    accuracy: Interval
    gain: Interval
    chance: float
    beyond: Interval
    beyond_chance: float
    sooner: Interval
    sooner_beyond: Interval
    finished: tuple[int, int]
    similarity: dict[tuple[str, str], float]
    change: dict[tuple[str, str], Interval]
    norm: float
    of_seeds: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Whether the difference is more than chance would explain."""
        return self.chance < FALSE_DISCOVERIES

    @property
    def clear_of_control(self) -> bool:
        """Whether the difference to its control is."""
        return self.beyond_chance < FALSE_DISCOVERIES


def findings(outcomes: Mapping[Trial, Outcome]) -> dict[str, Finding]:
    """By treatment, of all that were scored on the test images, beside the baseline."""
    tested = {t.treatment: (t, o) for t, o in outcomes.items() if t.split == "test"}
    if BASELINE not in tested:
        return {}
    _, baseline = tested[BASELINE]
    maps = similarities(baseline)
    found = {}
    for name, (trial, outcome) in tested.items():
        ours = accuracies(outcome)
        gain = paired(ours, accuracies(baseline))
        control = TREATMENTS[name].control
        beyond = sooner_beyond = np.empty(0)
        if control in tested:
            theirs = tested[control][1]
            beyond = paired(ours, accuracies(theirs))
            sooner_beyond = fewer_epochs(outcome, theirs, baseline)
        found[name] = Finding(
            trial,
            interval(ours[np.isfinite(ours)]),
            interval(gain),
            chance_of(gain),
            interval(beyond),
            chance_of(beyond),
            interval(fewer_epochs(outcome, baseline, baseline)),
            interval(sooner_beyond),
            (int(np.isfinite(ours).sum()), len(ours)),
            {key: mean_of_known(each) for key, each in similarities(outcome).items()},
            {
                key: interval(paired(each, maps[key]))
                for key, each in similarities(outcome).items()
            },
            norm_at_start(outcome),
            tuple(ours.tolist()),
        )
    chances = adjusted({name: each.chance for name, each in found.items()})
    beyond_chances = adjusted({name: x.beyond_chance for name, x in found.items()})
    return {
        name: each._replace(chance=chances[name], beyond_chance=beyond_chances[name])
        for name, each in found.items()
    }


def difference(one: Finding, other: Finding) -> Interval:
    """Accuracy of one treatment less another's, of equal seeds."""
    return interval(paired(np.array(one.of_seeds), np.array(other.of_seeds)))


def adjusted(chances: Mapping[str, float]) -> dict[str, float]:
    """Probabilities adjusted for their number; NaN stays."""
    names = [name for name in chances if np.isfinite(chances[name])]
    known = [chances[name] for name in names]
    values = stats.false_discovery_control(known) if known else ()
    return dict(chances) | dict(zip(names, map(float, values), strict=True))


def accuracies(outcome: Outcome) -> np.ndarray:
    """Of each seed; NaN if it diverged."""
    return np.array([score.accuracy for score in outcome.scores])


def paired(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences seed by seed, where both are known."""
    difference = ours - theirs
    return difference[np.isfinite(difference)]


def chance_of(differences: np.ndarray) -> float:
    """The two-sided probability of a mean that far from 0; NaN if all are 0.

    >>> round(chance_of(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    if len(differences) < 2 or not differences.any():
        return np.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def curves(outcome: Outcome) -> np.ndarray:
    """Validation accuracy after each epoch, `(seeds, epochs)`."""
    seeds = [score.seed for score in outcome.scores]
    last = max(row.epoch for row in outcome.epochs)
    table = np.full((len(seeds), last), np.nan)
    for row in outcome.epochs:
        table[seeds.index(row.seed), row.epoch - 1] = row.accuracy
    return table


def time_to_target(outcome: Outcome, baseline: Outcome) -> np.ndarray:
    """Epochs that each seed takes to what the baseline has after half of its epochs."""
    theirs = curves(baseline)
    target = mean_of_known(theirs[:, theirs.shape[1] // 2 - 1])
    return np.array([epochs_to(curve, target) for curve in curves(outcome)])


def fewer_epochs(ours: Outcome, theirs: Outcome, baseline: Outcome) -> np.ndarray:
    """Epochs that we reach the target before them, of the seeds that both reach it."""
    return paired(-time_to_target(ours, baseline), -time_to_target(theirs, baseline))


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


def similarities(outcome: Outcome) -> dict[tuple[str, str], np.ndarray]:
    """Mean over the layers of each seed, at each moment; keys as in `Finding`."""
    epochs = sorted({row.epoch for row in outcome.layers})
    moments = zip(("start", "middle", "end"), epochs, strict=True)
    seeds = [score.seed for score in outcome.scores]
    found = {}
    for moment, epoch in moments:
        for kind in SIMILARITIES:
            of_seed: dict[int, list[float]] = {seed: [] for seed in seeds}
            for row in outcome.layers:
                if row.epoch == epoch:
                    of_seed[row.seed].append(getattr(row, kind))
            found[kind, moment] = np.array([np.mean(each) for each in of_seed.values()])
    return found


def mean_of_known(values: np.ndarray) -> float:
    """The mean of what is finite; NaN if nothing is."""
    return interval(values[np.isfinite(values)]).mean


def norm_at_start(outcome: Outcome) -> float:
    """Norm of all conv kernels before training, the mean over seeds."""
    squares = [row.norm**2 for row in outcome.layers if row.epoch == 0]
    return float(np.sqrt(np.sum(squares) / len(outcome.scores)))
