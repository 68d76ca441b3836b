"""Smaller networks: as many channels as a trained network has effective maps."""

import dataclasses
from pathlib import Path
from typing import TypeVar

import numpy as np

from experiments.options import Config
from experiments.record import read_run

AnyConfig = TypeVar("AnyConfig", bound=Config)


def settled_widths(config: AnyConfig) -> AnyConfig:
    """The options with the widths that `--widths-from` stands for, in place of others.

    Raises:
        ValueError: the run cannot say.
    """
    if config.widths_from is None:
        return config
    widths = effective_widths(config.widths_from)
    return dataclasses.replace(config, width=1.0, widths=widths, widths_from=None)


def effective_widths(folder: Path) -> tuple[int, ...]:
    """The effective number of maps of each conv layer of a run, rounded up.

    `tr(S)^2 / tr(S^2)` of the correlations S of a layer's maps before the activation, by
    `cs.effective_maps`; the mean over the seeds that did not diverge, after training.
    """
    try:
        run = read_run(folder)
    except ValueError as error:
        raise ValueError(f"--widths-from is {folder}: {error}") from error
    if run.outcome is None:
        raise ValueError(f"--widths-from is {folder}, a run that is not finished")
    maps = run.outcome.end.effective_before
    if maps is None or not np.isfinite(maps[run.finished]).any(axis=0).all():
        raise ValueError(
            f"--widths-from is {folder}, which does not say how many of its maps are "
            "effective: its seeds diverged, or an earlier version made it"
        )
    means = np.nanmean(maps[run.finished], axis=0)
    return tuple(int(width) for width in np.ceil(means))
