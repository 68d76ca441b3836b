"""The run folder: what is written is read again, and nothing is half written."""

import json

import jax
import numpy as np
import pytest

from experiments.classify.results import RunFolder, replacing
from tests.classify_results import result

OPTIONS = {"seeds": 3, "learning_rate": 0.1, "methods": ["none", "control"]}


def test_results_and_kernels_are_read_again(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run", OPTIONS, {"device": "cpu"})
    kept = result([[50, 60], [55, np.nan]], diverged_at=[0, 2])
    kernels = {"start/Conv_0/kernel": np.arange(6.0).reshape(1, 2, 3, 1)}
    folder.add("none", kept, kernels)
    again = RunFolder(tmp_path / "a" / "run", OPTIONS, {})
    assert list(again.results) == ["none"]
    jax.tree.map(np.testing.assert_array_equal, again.results["none"], kept)
    loaded = again.kernels("none")
    assert list(loaded) == list(kernels)
    np.testing.assert_array_equal(loaded["start/Conv_0/kernel"], kernels.popitem()[1])


def test_what_is_not_finite_is_null_in_json_and_empty_in_csv(tmp_path):
    folder = RunFolder(tmp_path / "run", OPTIONS, {})
    folder.add("none", result([[np.nan, np.inf]], diverged_at=[1]), {})
    text = (tmp_path / "run" / "results.json").read_text()
    assert json.loads(text)["none"]["accuracy"] == [[None, None]]
    assert "NaN" not in text and "Infinity" not in text
    folder.write_csv("x.csv", ["a", "b"], [[np.float32(np.nan), 1], [None, 0.5]])
    assert (tmp_path / "run" / "x.csv").read_text() == "a,b\n,1\n,0.5\n"


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path, "w") as file:
        file.write("half of the n")
        file.flush()
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.2}, r"--learning-rate is 0.2, and was 0.1 in .*config.json"),
        (
            {"methods": ["none"]},
            r'--methods is \["none"\], and was \["none", "cont',
        ),
        ({"new": 1}, r"--new is 1, and was null"),
    ],
)
def test_other_options_are_refused_by_name(tmp_path, change, message):
    RunFolder(tmp_path / "run", OPTIONS, {})
    with pytest.raises(ValueError, match=message):
        RunFolder(tmp_path / "run", {**OPTIONS, **change}, {})


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="holds something other than a run"):
        RunFolder(tmp_path, OPTIONS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("below", ["", "run"])
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"--output is .*file.*, which cannot be written: "):
        RunFolder(tmp_path / "file" / below, OPTIONS, {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", r"config\.json is damaged: Expecting"),
        ("config.json", "[]", r"config\.json is damaged: it names no options"),
        ("results.json", '{"none": {', r"results\.json is damaged: Expecting"),
        ("results.json", '{"none": {}}', r"results\.json is damaged: KeyError"),
        ("results.json", "[]", r"results\.json is damaged: AttributeError"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    RunFolder(tmp_path / "run", OPTIONS, {})
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        RunFolder(tmp_path / "run", OPTIONS, {})
