"""The numbers of a run that the page states, in words."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.record import Run
from experiments.report.charts import layer_means
from experiments.report.wording import NONE, count, duration, number, percentage, span

# What the table tells of a layer, by its name in `Layers`.
MEASURES = {
    "norm": "norm",
    "paper_loss": "paper's loss",
    "scale_free_loss": "scale-free",
    "before": "maps before",
    "after": "maps after",
    "before_centered": "before, centered",
    "after_centered": "after, centered",
}


class Fact(NamedTuple):
    """A number at the head of the page."""

    name: str
    value: str
    about: str


class LayerRow(NamedTuple):
    """A conv layer: each of `MEASURES` before and after training."""

    name: str
    shape: str
    cells: list[str]


def title(run: Run) -> str:
    """What was trained on what."""
    options = run.config["options"]
    named = [Path(str(options[n])).name for n in ("model", "dataset") if options.get(n)]
    return " on ".join(named) or run.folder.resolve().name


def warnings(run: Run) -> list[str]:
    """What a reader must know before any number."""
    found = []
    if run.outcome is None:
        done = max((epoch.epoch for epoch in run.history), default=0)
        total = run.config["options"].get("epochs")
        of = f"{done} of {count(total, 'epoch')}" if total else count(done, "epoch")
        found.append(f"Not finished: {of} done. The run is going on or was interrupted.")
    gone = np.flatnonzero(~run.finished)
    if len(gone):
        seeds = f"Seed{'s' * (len(gone) > 1)} {', '.join(map(str, gone))} diverged"
        if run.outcome is not None:
            seeds += f" in epoch {span(run.outcome.diverged_at[gone])}"
        others = ": means are of the others" if run.finished.any() else ""
        found.append(f"{seeds}{others}.")
    return found


def facts(run: Run) -> list[Fact]:
    """The numbers at the head of the page."""
    return [*_scores(run), *_costs(run)]


def _scores(run: Run) -> list[Fact]:
    finished, outcome = run.finished, run.outcome
    if not finished.any():
        return []
    seeds = "one seed, so no interval"
    if finished.sum() > 1:
        seeds = f"mean of {finished.sum()} seeds and its 95 % interval"
    validated = any(np.isfinite(epoch.accuracy).any() for epoch in run.history)
    if outcome is None:
        last = percentage(run.history[-1].accuracy[finished])
        return [Fact("Validation accuracy", last, f"so far; {seeds}")] * validated
    start, end = (number(maps.mean()) for maps in layer_means(outcome, "before"))
    return [
        Fact(
            f"{outcome.scored.capitalize()} accuracy",
            percentage(outcome.accuracy[finished]),
            f"{seeds}; {count(outcome.images, 'image')}",
        ),
        Fact(
            "Chosen epoch",
            span(outcome.chosen_epoch[finished]),
            "best on the validation images" if validated else "the last",
        ),
        Fact(
            "Feature-map similarity",
            f"{start} → {end}",
            "before and after training: mean of the layers, before the activation",
        ),
    ]


def _costs(run: Run) -> list[Fact]:
    found = []
    if run.history:
        seconds = sum(epoch.seconds for epoch in run.history)
        about = f"all epochs, {count(len(run.finished), 'seed')}"
        speeds = np.array([epoch.images_per_second for epoch in run.history])
        speeds = speeds[np.isfinite(speeds) & (speeds > 0)]
        if len(speeds):
            about += f"; {number(float(np.median(speeds)))} images a second"
        if run.outcome is not None:
            seconds = run.outcome.seconds
        found.append(Fact("Time", duration(seconds), about))
    if run.outcome is not None:
        layers = count(len(run.outcome.end.names), "conv layer")
        found.append(Fact("Parameters", f"{run.outcome.parameters:,}", f"{layers}"))
    return found


def seed_rows(run: Run) -> list[tuple[str, str, str, str]]:
    """Of several seeds: seed, accuracy, chosen epoch, what went wrong."""
    if run.outcome is None or len(run.finished) < 2:
        return []
    of = run.outcome
    return [
        (str(seed), f"{accuracy:.2f}", f"{chosen:.0f}", "")
        if diverged == 0
        else (str(seed), NONE, NONE, f"diverged in epoch {diverged:.0f}")
        for seed, (accuracy, chosen, diverged) in enumerate(
            zip(of.accuracy, of.chosen_epoch, of.diverged_at, strict=True)
        )
    ]


def layer_rows(run: Run) -> list[LayerRow]:
    """The conv layers in order of use, the mean of the seeds."""
    if run.outcome is None or not run.finished.any():
        return []
    columns = [layer_means(run.outcome, field) for field in MEASURES]
    return [
        LayerRow(
            name.removesuffix("/kernel"),
            "x".join(map(str, shape)),
            [f"{number(start[layer])} → {number(end[layer])}" for start, end in columns],
        )
        for layer, (name, shape) in enumerate(
            zip(run.outcome.end.names, run.outcome.end.shapes, strict=True)
        )
    ]
