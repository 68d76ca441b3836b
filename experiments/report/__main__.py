"""Writes a page about a training run, or one that compares several.

Of one run it is `report.html`, in the run's folder: what `experiments.train` writes at
the end, here written again, or while the run is still going. Of several it has them side
by side, and their numbers are in a CSV file next to it. A page is one file, and needs no
network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments import command_line
from experiments.report.page import write_comparison, write_report

COMMAND = "python -m experiments.report"


@dataclass(frozen=True)
class Config:
    """Which runs to report.

    Attributes:
        runs: Run folders, as `experiments.train` leaves them.
        output: The page that compares several. The CSV file has its name.
    """

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint=""),
    ] = ()
    output: Annotated[Path | None, command_line.unset("PATH", "comparison.html")] = None


def main(config: Config) -> None:
    """Writes and names the page."""
    if not config.runs:
        raise ValueError("no run folder is given; expected one or more")
    jax.config.update("jax_platforms", "cpu")  # a run may still hold the accelerator
    output = config.output or Path("comparison.html")
    if output.suffix != ".html" or (config.output and len(config.runs) == 1):
        raise ValueError(
            f"--output is {output}; expected a name that ends in .html, and several runs"
        )
    if len(config.runs) == 1:
        print(write_report(config.runs[0]))
    else:
        print(write_comparison(config.runs, output))


if __name__ == "__main__":
    code = command_line.run(main, Config, prog=COMMAND, description=__doc__)
    command_line.leave(code)
