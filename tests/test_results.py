"""Every figure of the results page, and of the README, is that of the rows."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.compare.settings import SETTINGS

ROOT = Path(__file__).parents[1]
README, PAGE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md")
)
FIGURE = re.compile(r"[+-]?\d+\.\d+ ± \d+\.\d+")
MEASURES = ("noise", "blur", "calibration")


def rows_of(setting, method, name="trials"):
    """The rows of a method's tests, read here and nowhere else: of the last trial."""
    path = ROOT / "experiments" / "results" / setting / f"{name}.csv"
    rows = [
        row
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        if (row["split"], row["method"]) == ("test", method)
    ]
    tuned = [[row.get(x) for x in ("strength", "learning_rate", "decay")] for row in rows]
    return [row for row, one in zip(rows, tuned, strict=True) if one == tuned[-1]]


def difference(setting, ours, theirs, measure="accuracy"):
    """As the page has it: mean and interval of equal seeds; nothing of fewer than two."""
    if ours == theirs:
        return ""
    ours, theirs = (
        {r["seed"]: float(r[measure]) for r in rows_of(setting, method) if r[measure]}
        for method in (ours, theirs)
    )
    points = np.array([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
    if points.size < 2:
        return ""
    interval = stats.t.ppf(0.975, points.size - 1) * stats.sem(points)
    return f"{points.mean():+.2f} ± {interval:.2f}"


def effective(setting, method):
    """Effective maps after training, a fraction, before the activation and after it."""
    names = ("effective_before", "effective_after")
    rows = [row for row in rows_of(setting, method, "layers") if row[names[0]]]
    end = max((row["epoch"] for row in rows), key=int, default=None)
    last = [row for row in rows if row["epoch"] == end]
    means = (np.mean([float(row[name]) for row in last]) for name in names)
    return " / ".join(f"{mean:.2f}" for mean in means) if last else ""


def tables(page):
    """Of each the cells of its lines, the first one its head."""
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = [line.strip("|").split("|") for line in block.splitlines()]
        head, _, *body = [[cell.strip() for cell in line] for line in lines]
        yield head, body


def expected(table, line, column):
    """What should stand in a cell of the page."""
    if table == "setting":
        return difference(line, *re.fullmatch("`(.+)` less `(.+)`", column).groups())
    name = table.strip("`")
    setting, method = (name, line) if name in SETTINGS else (line, name)
    assert method in SETTINGS[setting].methods or method == SETTINGS[setting].baseline
    if column in MEASURES:
        return difference(setting, method, SETTINGS[setting].baseline, column)
    if less := re.fullmatch("less `(.+)`", column):
        return difference(setting, method, less[1])
    of = re.fullmatch("that of `(.+)`", column)
    assert of or column == "effective"
    return effective(setting, of[1] if of else method)


def figures():
    """All of the tables: where it stands, what stands there, and what should."""
    for (table, *head), body in tables(PAGE):
        for line, *cells in body:
            for column, stated in zip(head, cells, strict=True):
                yield f"{table}, {line}, {column}", stated, expected(table, line, column)
    for (_, *head), body in tables(README):
        for line, *cells in body:
            (setting,) = re.findall("`(.+)`", line)
            for column, stated in zip(head, cells, strict=True):
                (method,) = re.findall("`(.+)`", column)
                should = difference(setting, method, SETTINGS[setting].baseline)
                yield f"README, {setting}, {method}", stated, should


@pytest.mark.parametrize("figure", [*figures()], ids=lambda figure: figure[0])
def test_a_figure_is_that_of_the_trials(figure):
    _, stated, should = figure
    assert stated == should


def test_no_other_figure_has_an_interval():
    in_tables = {stated for _, stated, _ in figures() if stated}
    assert in_tables >= set(FIGURE.findall(PAGE))
    (decay,) = FIGURE.findall("\n".join(x for x in README.splitlines() if x[:1] != "|"))
    assert f"+{decay}" == difference("batch-norm", "decay", "none")
