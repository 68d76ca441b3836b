"""Every figure of the results page, and of the README, is that of the rows."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
HEAD, _, *ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|")
]
FIGURE = re.compile(r"[+-]?\d+\.\d+ ± \d+\.\d+")


def accuracies(setting, treatment):
    """Test accuracy by seed, read here and nowhere else."""
    path = ROOT / "experiments" / "results" / setting / "trials.csv"
    return {
        row["seed"]: float(row["accuracy"])
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        if (row["split"], row["treatment"]) == ("test", treatment)
    }


def difference(setting, ours, theirs):
    """As the page has it: mean and interval of equal seeds, or nothing."""
    ours, theirs = accuracies(setting, ours), accuracies(setting, theirs)
    points = np.array([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
    if not points.size:
        return ""
    interval = stats.t.ppf(0.975, points.size - 1) * stats.sem(points)
    return f"{points.mean():+.2f} ± {interval:.2f}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_that_of_the_trials(row):
    ours, theirs = re.fullmatch("`(.+)` less `(.+)`", row[0]).groups()
    assert row[1:] == [difference(setting, ours, theirs) for setting in HEAD[1:]]


def test_no_other_figure_has_an_interval():
    in_rows = {figure for row in ROWS for figure in row[1:] if figure}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    stated = FIGURE.findall(readme) + FIGURE.findall(PAGE)
    assert in_rows and stated
    assert {f if f[0] in "+-" else f"+{f}" for f in stated} <= in_rows
