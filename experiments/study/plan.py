"""Which trials a setting needs, and which comes next.

Every treatment, the baseline too, is given as many trials to choose by: the baseline that
many learning rates; the others their strengths at the baseline's best learning rate, and
then the best strength at the next lower and the next higher rate. They are scored on the
validation images. What was chosen is trained again, from other seeds, and scored on the
test images.

A setting may take strengths as they were chosen in another one: then only the baseline
chooses a learning rate, and all others are trained at it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.study.results import Outcome, Trial
from experiments.study.settings import Setting
from experiments.study.treatments import TREATMENTS

Outcomes = Mapping[Trial, Outcome]
Strengths = Mapping[str, float]
BASELINE = "none"


def next_trial(
    setting: Setting, treatments: Sequence[str], outcomes: Outcomes, chosen: Strengths
) -> Trial | None:
    """The first trial of these treatments that is not done; None if all are.

    Args:
        setting: see there.
        treatments: to look at, after the baseline.
        outcomes: of the setting.
        chosen: strengths of another setting, if this one takes them from there.
    """
    for treatment in (BASELINE, *treatments):
        for trial in trials_of(treatment, setting, outcomes, chosen):
            if trial not in outcomes:
                return trial
    return None


def strengths(outcomes: Outcomes) -> Strengths:
    """Those that were chosen, by treatment."""
    return {t.treatment: t.strength for t in outcomes if t.split == "test"}


def trials_of(
    treatment: str, setting: Setting, outcomes: Outcomes, chosen: Strengths
) -> list[Trial]:
    """The trials of a treatment, as far as those that are done say what they are.

    The last is the one that is scored on the test images, if the others are done.
    """
    if setting.like and treatment != BASELINE:
        if treatment not in chosen:
            return []
        rate = rate_of(setting, outcomes, chosen)
        return [Trial("test", treatment, chosen[treatment], rate)]
    if treatment == BASELINE:
        rounds = [[Trial("validation", BASELINE, 0.0, x) for x in setting.learning_rates]]
    else:
        rate = rate_of(setting, outcomes, chosen)
        rounds = [
            [
                Trial("validation", treatment, strength, rate)
                for strength in TREATMENTS[treatment].strengths
            ]
        ]
        if all(trial in outcomes for trial in rounds[0]):
            strongest = best(rounds[0], outcomes)
            rounds.append(
                [
                    strongest._replace(learning_rate=x)
                    for x in neighbours(rate, setting.learning_rates)
                ]
            )
    trials = [trial for trials in rounds for trial in trials]
    if all(trial in outcomes for trial in trials):
        trials.append(best(trials, outcomes)._replace(split="test"))
    return trials


def rate_of(setting: Setting, outcomes: Outcomes, chosen: Strengths) -> float:
    """The baseline's best learning rate."""
    trials = trials_of(BASELINE, setting, outcomes, chosen)
    return best(trials[:-1], outcomes).learning_rate


def neighbours(rate: float, rates: tuple[float, ...]) -> list[float]:
    """The next lower and the next higher learning rate.

    At an end of the list it goes on with the factor between the last two.

    >>> neighbours(0.1, (0.01, 0.1, 0.5)), neighbours(0.01, (0.01, 0.1, 0.5))
    ([0.01, 0.5], [0.001, 0.1])
    """
    place = rates.index(rate)
    lower = rates[place - 1] if place else rates[0] ** 2 / rates[1]
    higher = rates[place + 1] if place + 1 < len(rates) else rates[-1] ** 2 / rates[-2]
    return [float(f"{lower:.6g}"), float(f"{higher:.6g}")]


def best(trials: list[Trial], outcomes: Outcomes) -> Trial:
    """The trial of the highest mean accuracy; a seed that diverged counts as 0."""
    return max(trials, key=lambda trial: float(np.mean(accuracies(outcomes[trial]))))


def accuracies(outcome: Outcome) -> np.ndarray:
    """Of each seed; 0 for one that diverged."""
    return np.nan_to_num([score.accuracy for score in outcome.scores])
