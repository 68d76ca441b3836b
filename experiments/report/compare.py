"""Runs beside each other: names, how much better each is, options that differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.interval import mean
from experiments.record import Run
from experiments.report.facts import SHARE, layer_values
from experiments.report.wording import option


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """By method; by the folders' names, or the folders, where methods are alike."""
    folders = [run.folder.resolve() for run in runs]
    methods = [str(run.options.get("method")) for run in runs]
    for names in (methods, [folder.name for folder in folders], map(str, folders)):
        found = dict(zip(names, runs, strict=True))
        if len(found) == len(runs):
            return found
    raise ValueError("a run folder is there twice; expected each once")


def differences(first: Run, other: Run) -> np.ndarray:
    """How much more accurate each seed is than the same seed of the first run.

    None where the seeds or the images are not the same.
    """
    same = ("dataset", "train_size", "validation", "seeds")
    if not (first.outcome and other.outcome) or any(
        first.options.get(name) != other.options.get(name) for name in same
    ):
        return np.zeros(0)
    difference = other.outcome.accuracy - first.outcome.accuracy
    return np.asarray(difference[first.finished & other.finished])


def differing(runs: Mapping[str, Run]) -> dict[str, list[str]]:
    """The options that are not the same in all runs."""
    names = dict.fromkeys(name for run in runs.values() for name in run.options)
    found = {name: [option(x.options.get(name)) for x in runs.values()] for name in names}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def table(runs: Mapping[str, Run]) -> tuple[list[str], list[list[Any]]]:
    """A header, and a row a run and seed, of the networks that were chosen."""
    measures = {
        "kernel_similarity": "scale_free_loss",
        "feature_map_similarity": "before",
        "effective_maps_percent": SHARE,
    }
    of_seeds = ["accuracy", "chosen_epoch", "diverged_at"]
    rows: list[list[Any]] = []
    for name, run in runs.items():
        if run.outcome is None:
            continue
        columns = [getattr(run.outcome, field) for field in of_seeds]
        for field in measures.values():
            values = layer_values(run, "end", field)
            columns.append(
                [None] * len(run.finished) if values is None else [*map(mean, values)]
            )
        about = [name, run.folder, run.options.get("method")]
        rows += [
            [*about, seed, *row] for seed, row in enumerate(zip(*columns, strict=True))
        ]
    return ["run", "folder", "method", "seed", *of_seeds, *measures], rows
