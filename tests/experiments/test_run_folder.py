"""Run folders: new or claimed by one run, and nothing half written."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import jaxlib
import numpy as np
import pytest

from experiments.run_folder import (
    claim,
    fresh,
    no_stub,
    replacing,
    versions,
    write_csv,
    write_json,
)

OPTIONS = {"seeds": 3, "learning_rate": 0.1, "methods": ["none", "all"], "path": "here"}


@pytest.mark.parametrize("below", ["", "run", "run/below"])
@pytest.mark.parametrize("name", ["--output", "--results"])
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, below, name):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below
    message = f"^{name} is {path}, which cannot be written: .*: {tmp_path}/file"
    with pytest.raises(OSError, match=message):
        claim(path, OPTIONS, {}, name)


def test_a_claim_notes_options_and_circumstances_until_there_are_results(tmp_path):
    folder = tmp_path / "a" / "run"
    path = folder / "config.json"
    for device in ("cpu", "cpu"):
        claim(folder, OPTIONS, {"device": device})
        assert json.loads(path.read_text()) == {"options": OPTIONS, "device": device}
    for device in ("gpu", "gpu", "cpu"):
        claim(folder, OPTIONS, {"device": device})
    noted = json.loads(path.read_text())
    earlier = [{"device": "cpu"}, {"device": "gpu"}]
    assert noted == {"options": OPTIONS, "device": "cpu", "earlier": earlier}
    (folder / "results.json").write_text("{}")
    claim(folder, OPTIONS, {"device": "tpu"})
    assert json.loads(path.read_text()) == noted


def test_a_dataset_that_has_changed_since_is_refused(tmp_path):
    images = {"train": {"images": 5, "checksum": 7}, "classes": ["a", "b"]}
    claim(tmp_path, {"dataset": "/photos"}, {}, settled={"dataset": images})
    claim(tmp_path, {"dataset": "/photos"}, {}, settled={"dataset": images, "steps": 1})
    changed = images | {"train": {"images": 6, "checksum": 8}}
    message = r"^--dataset no longer stands .*begun: train is .* 6.*, and was "
    with pytest.raises(ValueError, match=message):
        claim(tmp_path, {"dataset": "/photos"}, {}, settled={"dataset": changed})
    of_earlier_versions = {"options": {"dataset": "/photos"}}
    (tmp_path / "config.json").write_text(json.dumps(of_earlier_versions))
    claim(tmp_path, {"dataset": "/photos"}, {}, settled={"dataset": changed})


def test_a_run_may_go_on_for_longer_and_not_end_sooner(tmp_path):
    results = tmp_path / "results.json"
    claim(tmp_path, {"epochs": 6}, {"device": "cpu"})
    results.write_text("{}")
    claim(tmp_path, {"epochs": 9}, {"device": "cpu"}, growing=["epochs"])
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "options": {"epochs": 9},
        "device": "cpu",
        "earlier": [{"options": {"epochs": 6}, "device": "cpu"}],
    }
    assert not results.exists()
    results.write_text("{}")
    claim(tmp_path, {"epochs": 9}, {}, growing=["epochs"])
    assert results.exists()
    with pytest.raises(ValueError, match="--epochs is 8, and was 9"):
        claim(tmp_path, {"epochs": 8}, {}, growing=["epochs"])


def test_two_runs_that_start_at_once_have_two_folders(tmp_path):
    path = tmp_path / "runs" / "digits-none"
    names = [fresh(path).name for _ in range(3)]
    assert names == ["digits-none", "digits-none-2", "digits-none-3"]
    assert sorted(names) == sorted(folder.name for folder in path.parent.iterdir())


@pytest.mark.parametrize(("file", "kept"), [(None, False), ("a.json", True)])
def test_a_run_that_fails_before_its_first_file_leaves_no_stub(tmp_path, file, kept):
    path = tmp_path / "run"
    with pytest.raises(MemoryError), no_stub(path):
        claim(path, OPTIONS, {})
        (path / (file or "config.json")).touch()
        raise MemoryError
    assert path.exists() == kept


def test_versions_are_of_packages_that_are_installed():
    found = versions("jaxlib", "no-such-package")
    assert list(found) == ["convsim_jax", "python", "jax", "flax", "optax", "jaxlib"]
    assert found["jaxlib"] == jaxlib.__version__


def test_what_a_kill_left_half_written_is_no_obstacle_and_is_deleted(
    tmp_path, monkeypatch
):
    for name in ("config.json", "history.json"):
        with monkeypatch.context() as patch:  # a killed process replaces and deletes none
            for method in ("replace", "unlink"):
                patch.setattr(Path, method, lambda *given, **options: None)
            with replacing(tmp_path / name, "w"):
                pass
        assert list(tmp_path.glob(f".{name}.*"))
        claim(tmp_path, OPTIONS, {})
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_another_program_is_writing_is_left_to_it(tmp_path):
    claim(tmp_path, OPTIONS, {})
    killed = tmp_path / f".trials.csv.{32 * 'a'}"
    killed.touch()
    with replacing(tmp_path / "trials.csv", "w") as file:
        claim(tmp_path, OPTIONS, {})
        file.write("all of it")
    assert (tmp_path / "trials.csv").read_text() == "all of it"
    assert not killed.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.2}, r"--learning-rate is 0.2, and was 0.1 in .*config.json"),
        ({"methods": ["none"]}, r'--methods is \["none"\], and was \["none", "all'),
        ({"new": 1}, r"--new is 1, and was null"),
        ({"path": "/elsewhere"}, r'--path is "/elsewhere", and was "/.*here"'),
        ("{", r"config\.json is damaged: Expecting"),
        ("[]", r"config\.json is damaged: it names no options"),
    ],
)
def test_other_options_are_refused_by_name(tmp_path, change, message):
    claim(tmp_path, OPTIONS, {})
    options = {**OPTIONS, "path": str(Path("here").resolve())}
    claim(tmp_path, options, {})  # which earlier versions did not resolve
    path = tmp_path / "config.json"
    if isinstance(change, str):
        path.write_text(change)
        change = {}
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        claim(tmp_path, {**options, **change}, {})
    assert path.read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    names = {"thesis.tex", f".config.json.{32 * '0'}"}
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match="holds something other than a run"):
        claim(tmp_path, OPTIONS, {})
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path, "w") as file:
        file.write("half of the n")
        file.flush()
        raise RuntimeError
    assert path.read_text() == "old"

    def fsync(descriptor):
        (temporary,) = set(tmp_path.iterdir()) - {path}
        assert os.path.samestat(os.fstat(descriptor), temporary.stat())
        synced.append((temporary.read_text(), path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(path, "w") as file:
        file.write("new")
    assert synced == [("new", "old")]  # on the disk before it replaces the other
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


class Point(NamedTuple):
    x: object
    y: object


def test_json_and_csv_of_arrays_named_tuples_and_what_is_not_finite(tmp_path):
    points = [Point(np.float32("nan"), np.arange(2)), Point(Path("a"), (np.inf, None))]
    write_json(tmp_path / "points.json", points)
    assert json.loads((tmp_path / "points.json").read_text()) == [
        {"x": None, "y": [0, 1]},
        {"x": "a", "y": [None, None]},
    ]
    write_csv(tmp_path / "points.csv", Point._fields, [[np.nan, 1], Point(None, 0.5)])
    assert (tmp_path / "points.csv").read_text() == "x,y\n,1\n,0.5\n"
