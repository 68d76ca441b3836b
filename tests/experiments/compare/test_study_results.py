"""The study's CSV files: what they bring back, what damages them, what a crash leaves."""

import math

import numpy as np
import pytest

from experiments import run_folder
from experiments.study.results import FILES, Outcome, Results, Trial
from experiments.study.settings import SETTINGS
from tests.experiments.compare.study_outcomes import final, scored, trial_of

FIRST = Trial("validation", "paper-reg", 1e-05, 0.015)
LAST = trial_of("paper-init", 300.0)


@pytest.fixture
def folder(tmp_path):
    """A folder of a validation trial and a test trial; of each, a seed diverged."""
    results = Results(tmp_path / "setting")
    results.claim(SETTINGS["plain"].options())
    results.add(FIRST, scored(61.25, np.nan))
    results.add(LAST, final([70.1, np.nan], [[1 / 3, 50.0], [40.0, np.nan]]))
    return tmp_path / "setting"


def same(one, other):
    """Equal, type by type, and NaN where the other is."""
    for field in Outcome._fields:
        rows, others = getattr(one, field), getattr(other, field)
        assert len(rows) == len(others)
        for row, expected in zip(rows, others, strict=True):
            for cell, value in zip(row, expected, strict=True):
                assert type(cell) is type(value)
                assert cell == value or (math.isnan(cell) and math.isnan(value))


def test_everything_comes_back(folder):
    outcomes = Results(folder).outcomes
    assert list(outcomes) == [FIRST, LAST]
    same(outcomes[FIRST], scored(61.25, np.nan))
    same(outcomes[LAST], final([70.1, np.nan], [[1 / 3, 50.0], [40.0, np.nan]]))


def test_files_are_tables_with_a_row_for_each_seed_and_nothing_for_nan(folder):
    lines = (folder / "trials.csv").read_text().splitlines()
    assert lines[0] == (
        "split,treatment,strength,learning_rate,"
        "seed,accuracy,diverged_at,seconds,device,versions"
    )
    assert lines[1:3] == [
        'validation,paper-reg,1e-05,0.015,5,61.25,0,1.5,cpu,"jax 0.10, numpy 2.0"',
        'validation,paper-reg,1e-05,0.015,6,,3,1.5,cpu,"jax 0.10, numpy 2.0"',
    ]
    assert len(lines) == 5
    assert "nan" not in "".join(path.read_text() for path in folder.iterdir())
    # Of validation trials, no curves and no layers.
    for name in ("epochs", "layers"):
        rows = (folder / f"{name}.csv").read_text().splitlines()[1:]
        assert rows
        assert all(row.startswith("test,paper-init,300.0,0.02,") for row in rows)


def test_what_is_read_and_written_again_is_the_same(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    results = Results(folder)
    results.add(FIRST, results.outcomes[FIRST])
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert Results(tmp_path / "nothing").outcomes == {}
    assert not (tmp_path / "nothing").exists()


def test_it_is_gone_on_with(folder):
    added = trial_of("none")
    Results(folder).add(added, final([1.0, 2.0]))
    outcomes = Results(folder).outcomes
    assert list(outcomes) == [FIRST, LAST, added]
    same(outcomes[LAST], final([70.1, np.nan], [[1 / 3, 50.0], [40.0, np.nan]]))


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
    same(results.outcomes[LAST], final([70.1, np.nan], [[1 / 3, 50.0], [40.0, np.nan]]))
    # It is trained again, and then nothing of it is there twice.
    results.add(trial_of("none"), final([3.0, 4.0]))
    same(Results(folder).outcomes[trial_of("none")], final([3.0, 4.0]))


def damaged(text, name):
    lines = text.splitlines(keepends=True)
    return {
        "cut": "".join(lines)[: -len(lines[-1]) + 12],
        "long": text.rstrip("\n") + ",1\n",
        "blank line": text + "\n",
        "column": text.replace("seed", "sead", 1),
        "columns": text.replace(",seed", "", 1),
        "number": text.replace(",0.02,", ",fast,"),
        "whole number": text.replace(",0.02,0,", ",0.02,0.5,"),
        "empty": "",
        "quote": text + '"' + 20_000 * "without an end ",
    }[name]


@pytest.mark.parametrize("file", [f"{name}.csv" for name in FILES])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "zip"),
        ("long", "zip"),
        ("blank line", "zip"),
        ("column", "its columns are split, treatment, strength, learning_rate, sead"),
        ("columns", "its columns are split, treatment, strength, learning_rate, "),
        ("number", "could not convert string to float: 'fast'"),
        ("whole number", "invalid literal for int"),
        ("empty", "list index out of range"),
        ("quote", "field larger than field limit"),
    ],
)
def test_a_damaged_file_is_named(folder, file, damage, message):
    path = folder / file
    text = damaged(path.read_text(encoding="utf-8"), damage)
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        Results(folder)
    assert str(caught.value).startswith(f"{path} is damaged: ")


def test_a_file_of_other_bytes_is_named(folder):
    (folder / "layers.csv").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"layers\.csv is damaged: 'utf-8' codec"):
        Results(folder)


def test_a_setting_whose_options_changed_is_refused(folder):
    options = SETTINGS["plain"].options()
    Results(folder).claim(options)
    message = f"epochs is 99, and was {options['epochs']} in "
    with pytest.raises(ValueError, match=message) as caught:
        Results(folder).claim(options | {"epochs": 99})
    assert str(folder / "config.json") in str(caught.value)
    assert list(Results(folder).outcomes) == [FIRST, LAST]


def test_a_setting_without_its_options_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="holds something other than a run"):
        Results(folder).claim(SETTINGS["plain"].options())
