"""Every figure of the results page, and of the README, is that of the rows."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
LINES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "---" not in line
]
FIGURE = re.compile(r"[+-]?\d+\.\d+ ± \d+\.\d+")


def accuracies(setting, method):
    """Test accuracy by seed, read here and nowhere else."""
    path = ROOT / "experiments" / "results" / setting / "trials.csv"
    return {
        row["seed"]: float(row["accuracy"])
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        if (row["split"], row["method"]) == ("test", method)
    }


def difference(setting, ours, theirs):
    """As the page has it: mean and interval of equal seeds, or nothing."""
    ours, theirs = accuracies(setting, ours), accuracies(setting, theirs)
    points = np.array([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
    if not points.size:
        return ""
    interval = stats.t.ppf(0.975, points.size - 1) * stats.sem(points)
    return f"{points.mean():+.2f} ± {interval:.2f}"


def figures():
    """All of the tables, as (setting, ours, theirs, what stands there)."""
    for first, *cells in LINES:
        if first == "setting":
            head = [re.fullmatch("`(.+)` less `(.+)`", cell).groups() for cell in cells]
        else:
            for names, cell in zip(head, cells, strict=True):
                yield first, *names, cell


@pytest.mark.parametrize("figure", [*figures()], ids=lambda figure: "-".join(figure[:3]))
def test_a_figure_is_that_of_the_trials(figure):
    *names, stated = figure
    assert stated == difference(*names)


def test_no_other_figure_has_an_interval():
    in_tables = {stated for *_, stated in figures() if stated}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    elsewhere = FIGURE.findall(readme) + FIGURE.findall(PAGE)
    assert in_tables and elsewhere
    assert {f if f[0] in "+-" else f"+{f}" for f in elsewhere} <= in_tables
