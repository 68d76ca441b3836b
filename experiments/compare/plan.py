"""Which trials a setting needs, and which comes next.

Where strengths are fixed, there is one of each intervention. Otherwise each, the baseline
too, is given six trials to choose by: the baseline that many learning rates; the others
four strengths at the baseline's best rate, and then the best strength at the next lower
and the next higher rate. What is tried with an optimizer of its own begins with what was
chosen for that alone. Where the baseline decays the kernels, it is tuned as the others
are, and they begin with its decay. A setting whose trials take minutes may say that the
others try three values at the baseline's rate alone. Trials that choose come first, and
are scored on the validation images. What was chosen is trained again, from other seeds,
and scored on the test images.

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
) -> tuple[Trial, range] | None:
    """The trial of these methods that is next, and its seeds; None if all are done.

    Those that choose come before those that are reported, and the baseline's first. Where
    seeds are trained alone, the trials that are reported take turns. `chosen` are the
    strengths of another setting, if this one takes them from there.
    """
    after = [one for method in methods if (one := INTERVENTIONS[method].after)]
    first = () if setting.fixed else (setting.baseline, *after)
    missing = [
        (trial, seeds)
        for method in dict.fromkeys((*first, *methods))
        for trial in trials_of(method, setting, outcomes, chosen or {})
        if (seeds := seeds_missing(setting, trial, outcomes))
    ]
    if not missing:
        return None
    trial, seeds = min(missing, key=lambda each: (each[0].split == "test", each[1].start))
    return trial, seeds[:1] if setting.alone else seeds


def seeds_missing(setting: Setting, trial: Trial, outcomes: Outcomes) -> range:
    """The seeds of a trial from the first on that is not done."""
    seeds = setting.seeds_of(trial.split, trial.method)
    done = {row.seed for row in outcomes[trial].scores} if trial in outcomes else set()
    missing = [place for place, seed in enumerate(seeds) if seed not in done]
    return seeds[missing[0] :] if missing else seeds[:0]


def final(outcomes: Outcomes, split: str = "test") -> dict[str, Trial]:
    """By method, the trial whose score is reported: of the most seeds, the last."""
    trials = [trial for trial in outcomes if trial.split == split]
    trials.sort(key=lambda trial: len(outcomes[trial].scores))
    return {trial.method: trial for trial in trials}


def strengths(outcomes: Outcomes) -> Strengths:
    """Those that were chosen, by method."""
    return {name: trial.strength for name, trial in final(outcomes).items()}


def trials_of(
    method: str, setting: Setting, outcomes: Outcomes, chosen: Strengths
) -> list[Trial]:
    """The trials of a method, as far as those that are done say what they are.

    The last is the one that is reported, if the others are done.
    """
    if setting.fixed:
        strength = setting.intervention(method).strength
        return [Trial(reported(setting), method, strength, setting.config.learning_rate)]

    def done(trials: list[Trial]) -> bool:
        return not any(seeds_missing(setting, trial, outcomes) for trial in trials)

    def then_beside(trials: list[Trial], rates: tuple[float, ...]) -> list[Trial]:
        """And the best at the rates beside its own."""
        if not done(trials):
            return trials
        found = best(trials, outcomes)
        beside = neighbours(found.learning_rate, rates)
        return trials + [found._replace(learning_rate=rate) for rate in beside]

    start, rates = Trial("validation", setting.baseline, 0.0, 0.0), setting.learning_rates
    if setting.decays:
        start = start._replace(learning_rate=rates[len(rates) // 2])
        trials = then_beside([start._replace(strength=x) for x in setting.decays], rates)
    else:
        trials = [start._replace(learning_rate=x) for x in rates]
    if method != setting.baseline:
        if not done(trials):
            return []
        base, one = best(trials, outcomes), INTERVENTIONS[method]
        decay, rate = base.strength, base.learning_rate
        if setting.like:
            known = method in chosen
            trial = Trial("test", method, chosen.get(method, 0.0), rate, decay)
            return [trial] if known else []
        if one.after:
            *_, last = trials_of(one.after, setting, outcomes, chosen)
            if last.split == "validation":
                return []
            rate, rates = last.learning_rate, INTERVENTIONS[one.after].tried
        tried = setting.tried.get(method, one.tried)
        if one.tunes == "rate":
            trials = [Trial("validation", method, 0.0, x, decay) for x in tried]
        else:
            trials = [Trial("validation", method, x, rate, decay) for x in tried]
            if method not in setting.tried:
                trials = then_beside(trials, rates)
    if done(trials):
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
