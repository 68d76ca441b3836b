"""Writes a page about a training run, `report.html`, into its run folder.

`experiments.train` does so at the end of every run. This writes it again, or while a run
is still going. The page is one file, and needs no network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments import command_line
from experiments.report.page import write_report

COMMAND = "python -m experiments.report"


@dataclass(frozen=True)
class Config:
    """Which runs to report.

    Attributes:
        folders: Run folders, as `experiments.train` leaves them.
    """

    folders: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FOLDER ...", help_behavior_hint=""),
    ] = ()


def main(config: Config) -> None:
    """Writes and names the page of each folder."""
    if not config.folders:
        raise ValueError("no run folder is given; expected one or more")
    jax.config.update("jax_platforms", "cpu")  # a run may still hold the accelerator
    for folder in config.folders:
        print(write_report(folder))


if __name__ == "__main__":
    code = command_line.run(main, Config, prog=COMMAND, description=__doc__)
    command_line.leave(code)
