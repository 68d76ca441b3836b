"""CSV files: what they bring back, what damages them, what a crash leaves."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import run_folder
from experiments.compare.plan import next_trial, strengths
from experiments.compare.results import FILES, Outcome, Results, Trial
from experiments.compare.settings import SETTINGS
from experiments.run_folder import plain
from tests.experiments.compare.outcomes import NAN, final, scored, trial_of

FIRST = Trial("validation", "paper-reg", 1e-05, 0.015, 0.1)
LAST = trial_of("paper-init", 300.0)
KEPT = Path("experiments", "results")


def last():
    return final([70.1, NAN], [[1 / 3, 50.0], [40.0, NAN]])


@pytest.fixture
def folder(tmp_path):
    """A folder of a validation trial and a test trial; of each, a seed diverged."""
    results = Results(tmp_path)
    results.add(FIRST, scored(61.25, NAN))
    results.add(LAST, last())
    return tmp_path


def same(one, other):
    """Equal, type by type, and NaN where the other is."""
    for field in Outcome._fields[:3]:
        pairs = zip(getattr(one, field), getattr(other, field), strict=True)
        for cell, value in (x for row in pairs for x in zip(*row, strict=True)):
            assert type(cell) is type(value)
            assert cell == value or (math.isnan(cell) and math.isnan(value))


def test_everything_comes_back_and_is_gone_on_with(folder):
    added = trial_of("none")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    Results(folder).add(added, final([1.0, 2.0]))
    for name, text in before.items():
        assert (folder / name).read_text().startswith(text)
    outcomes = Results(folder).outcomes
    assert list(outcomes) == [FIRST, LAST, added]
    same(outcomes[FIRST], scored(61.25, NAN))
    same(outcomes[LAST], last())
    same(outcomes[added], final([1.0, 2.0]))


def test_files_are_tables_with_a_row_for_each_seed_and_nothing_for_nan(folder):
    lines = (folder / "trials.csv").read_text().splitlines()
    assert lines[0] == (
        "split,method,strength,learning_rate,decay,"
        "seed,accuracy,diverged_at,seconds,device,versions,calibration,noise,blur"
    )
    assert lines[1:3] == [
        'validation,paper-reg,1e-05,0.015,0.1,5,61.25,0,1.5,cpu,"jax 0.10, numpy 2.0",,,',
        'validation,paper-reg,1e-05,0.015,0.1,6,,3,1.5,cpu,"jax 0.10, numpy 2.0",,,',
    ]
    assert len(lines) == 5
    for name in ("epochs", "layers"):  # none of validation trials
        text = (folder / f"{name}.csv").read_text()
        assert "nan" not in text
        assert all(x.startswith("test,paper-init,") for x in text.splitlines()[1:])


def test_columns_that_came_later_may_be_missing(folder):
    later = {"decay", "effective_before", "effective_after"}
    later |= {"calibration", "noise", "blur"}
    for path in folder.iterdir():
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        kept = [i for i, name in enumerate(header) if name not in later]
        (names, *rows) = [[row[i] for i in kept] for row in [header, *rows]]
        names[names.index("method")] = "treatment"  # as it was called
        run_folder.write_csv(path, names, rows)
    outcomes = Results(folder).outcomes
    assert list(outcomes) == [FIRST._replace(decay=0.0), LAST]
    for row, expected in zip(outcomes[LAST].layers, last().layers, strict=True):
        assert np.isnan(row[-2:]).all()
        np.testing.assert_array_equal(row[3:-2], expected[3:-2])


@pytest.mark.parametrize("name", SETTINGS)
def test_what_was_measured_is_recognised_as_done(name):
    results = Results(KEPT / name)
    if not results.outcomes:
        pytest.skip("not measured yet")
    setting = SETTINGS[name]
    noted = run_folder.read_json(results.folder / "config.json")["options"]
    assert noted == plain(setting.options())
    like = Results(KEPT / setting.like).outcomes if setting.like else {}
    done = list(strengths(results.outcomes))
    assert set(done) <= set(setting.methods)
    following = next_trial(setting, done, results.outcomes, strengths(like))
    assert setting.alone or following is None  # alone, seeds may be missing


def test_kernels_come_back(tmp_path):
    outcome = final([1.0], kernels=True)
    Results(tmp_path).add(LAST, outcome)
    kernels = Results(tmp_path).kernels("paper-init")
    assert kernels.keys() == outcome.kernels.keys()
    for path, kernel in kernels.items():
        np.testing.assert_array_equal(kernel, outcome.kernels[path])
    (tmp_path / "kernels" / "paper-init.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"paper-init\.npz is damaged"):
        Results(tmp_path).kernels("paper-init")


@pytest.mark.parametrize("written", range(len(FILES)))
def test_a_crash_between_two_files_loses_that_trial_alone(folder, written, monkeypatch):
    write, names = run_folder.write_csv, []

    def crash(path, header, rows):
        if len(names) == written:
            raise KeyboardInterrupt
        names.append(path.name)
        write(path, header, rows)

    monkeypatch.setattr(run_folder, "write_csv", crash)
    with pytest.raises(KeyboardInterrupt):
        Results(folder).add(trial_of("none"), final([1.0, 2.0]))
    monkeypatch.undo()
    assert "trials.csv" not in names
    results = Results(folder)
    assert list(results.outcomes) == [FIRST, LAST]
    same(results.outcomes[LAST], last())
    # It is trained again, and then nothing of it is there twice.
    results.add(trial_of("none"), final([3.0, 4.0]))
    same(Results(folder).outcomes[trial_of("none")], final([3.0, 4.0]))


def test_seeds_are_added_to_those_that_are_there_whoever_added_them(folder):
    one, other = Results(folder), Results(folder)
    added = trial_of("none"), trial_of("decay")
    one.add(added[0], scored(1.0))
    other.add(added[1], scored(2.0))
    one.add(added[0], scored(3.0, first_seed=6))
    other.add(added[0], scored(9.0))  # the first again, which is there
    for results in (one, Results(folder)):
        assert list(results.outcomes) == [FIRST, LAST, *added]
        same(results.outcomes[added[0]], scored(1.0, 3.0))
        same(results.outcomes[added[1]], scored(2.0))
        same(results.outcomes[LAST], last())


def test_what_a_crash_left_of_a_seed_is_not_there_twice(folder, monkeypatch):
    write = run_folder.write_csv
    partly, whole = (final([x]) for x in (3.0, 4.0))
    Results(folder).add(trial_of("none"), final([1.0]))
    for outcome in (partly, whole):
        seed = outcome.scores[0].seed + 1
        for field in Outcome._fields[:3]:
            rows = getattr(outcome, field)
            rows[:] = [row._replace(seed=seed) for row in rows]

    def crash(path, header, rows):
        if path.name == "trials.csv":
            raise KeyboardInterrupt
        write(path, header, rows)

    monkeypatch.setattr(run_folder, "write_csv", crash)
    with pytest.raises(KeyboardInterrupt):
        Results(folder).add(trial_of("none"), partly)
    monkeypatch.undo()
    Results(folder).add(trial_of("none"), whole)
    rows = Results(folder).outcomes[trial_of("none")].epochs
    assert [row.accuracy for row in rows if row.seed == 1] == [
        row.accuracy for row in whole.epochs
    ]


def damaged(text, name):
    lines = text.splitlines(keepends=True)
    return {
        "cut": "".join(lines)[: -len(lines[-1]) + 12],
        "long": text.rstrip("\n") + ",1\n",
        "column": text.replace("seed", "sead", 1),
        "number": text.replace(",0.02,", ",fast,"),
        "whole number": text.replace(",0.02,0.0,0,", ",0.02,0.0,0.5,"),
        "quote": text + '"' + 20_000 * "without an end ",
    }[name]


@pytest.mark.parametrize("file", [f"{name}.csv" for name in FILES])
@pytest.mark.parametrize(
    "damage", ["cut", "long", "column", "number", "whole number", "quote", "bytes"]
)
def test_a_damaged_file_is_named(folder, file, damage):
    path = folder / file
    text = path.read_text(encoding="utf-8")
    changed = b"\x89PNG\xff" if damage == "bytes" else damaged(text, damage).encode()
    assert changed != text.encode()
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged: ")):
        Results(folder)
