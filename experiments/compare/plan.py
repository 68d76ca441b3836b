"""Which trials a setting needs, and which comes next.

Where strengths are fixed, there is one of each intervention. Otherwise each, the baseline
too, is given as many trials to choose by: the baseline that many learning rates, with
every decay that the setting tries; the others their strengths at the baseline's best rate
and decay, and then the best strength at the next lower and the next higher rate. They are
scored on the validation images. What was chosen is trained again, from other seeds, and
scored on the test images.

A setting may take strengths as they were chosen in another one: then only the baseline
chooses a learning rate, and all others are trained at it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.compare.results import Outcome, Trial
from experiments.compare.settings import Setting
from experiments.interventions import INTERVENTIONS

Outcomes = Mapping[Trial, Outcome]
Strengths = Mapping[str, float]


def next_trial(
    setting: Setting,
    methods: Sequence[str],
    outcomes: Outcomes,
    chosen: Strengths | None = None,
) -> Trial | None:
    """The first trial of these methods that is not done; None if all are.

    Where learning rates are chosen, the baseline's trials come first. `chosen` are the
    strengths of another setting, if this one takes them from there.
    """
    first = () if setting.fixed else (setting.baseline,)
    for method in (*first, *methods):
        for trial in trials_of(method, setting, outcomes, chosen or {}):
            if trial not in outcomes:
                return trial
    return None


def final(outcomes: Outcomes, split: str = "test") -> dict[str, Trial]:
    """By intervention, the trial whose score is reported."""
    return {trial.treatment: trial for trial in outcomes if trial.split == split}


def strengths(outcomes: Outcomes) -> Strengths:
    """Those that were chosen, by intervention."""
    return {name: trial.strength for name, trial in final(outcomes).items()}


def trials_of(
    method: str, setting: Setting, outcomes: Outcomes, chosen: Strengths
) -> list[Trial]:
    """The trials of an intervention, as far as those that are done say what they are.

    The last is the one that is reported, if the others are done.
    """
    if setting.fixed:
        strength = setting.intervention(method).strength
        return [Trial(reported(setting), method, strength, setting.config.learning_rate)]
    trials = [
        Trial("validation", setting.baseline, decay, rate)
        for decay in setting.decays or (0.0,)
        for rate in setting.learning_rates
    ]
    if method != setting.baseline:
        base, one = best(trials, outcomes), INTERVENTIONS[method]
        decay, rate = base.strength, base.learning_rate
        if setting.like:
            known = method in chosen
            return [Trial("test", method, chosen[method], rate)] if known else []
        if one.tunes == "rate":
            trials = [Trial("validation", method, 0.0, x, decay) for x in one.tried]
        else:
            trials = [Trial("validation", method, x, rate, decay) for x in one.tried]
            if all(trial in outcomes for trial in trials):
                strongest = best(trials, outcomes)
                beside = neighbours(rate, setting.learning_rates)
                trials += [strongest._replace(learning_rate=x) for x in beside]
    if all(trial in outcomes for trial in trials):
        trials.append(best(trials, outcomes)._replace(split="test"))
    return trials


def reported(setting: Setting) -> str:
    """The split that is reported: with fixed strengths, what is held out if anything."""
    return "validation" if setting.fixed and setting.config.validation else "test"


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
    return max(trials, key=lambda trial: np.nan_to_num(outcomes[trial].accuracy).mean())
