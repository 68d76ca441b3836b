"""Results: what is kept in the run folder is read again, or named as damaged."""

import json

import jax
import numpy as np
import pytest

from experiments.classify.results import RunFolder
from tests.experiments.compare.classify_results import kernels, result

OPTIONS = {"seeds": 3}


def test_results_and_kernels_are_read_again(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run", OPTIONS, {"device": "cpu"})
    kept = result([[50, 60], [55, np.nan]], diverged_at=[0, 2])
    folder.add("none", kept, kernels())
    again = RunFolder(tmp_path / "a" / "run", OPTIONS, {})
    assert list(again.results) == ["none"]
    jax.tree.map(np.testing.assert_array_equal, again.results["none"], kept)
    loaded, expected = again.kernels("none"), kernels()
    assert list(loaded) == list(expected)
    for name, kernel in expected.items():
        np.testing.assert_array_equal(loaded[name], kernel)


def test_what_is_not_finite_is_null(tmp_path):
    folder = RunFolder(tmp_path / "run", OPTIONS, {})
    folder.add("none", result([[np.nan, np.inf]], diverged_at=[1]), {})
    text = (tmp_path / "run" / "results.json").read_text()
    assert json.loads(text)["none"]["accuracy"] == [[None, None]]
    assert "NaN" not in text and "Infinity" not in text


def test_results_of_other_options_are_refused(tmp_path):
    RunFolder(tmp_path / "run", OPTIONS, {})
    with pytest.raises(ValueError, match=r"--seeds is 4, and was 3 in .*config\.json"):
        RunFolder(tmp_path / "run", {"seeds": 4}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"none": {', r"results\.json is damaged: Expecting"),
        ('{"none": {}}', r"results\.json is damaged: ValueError"),
        ("[]", r"results\.json is damaged: AttributeError"),
    ],
)
def test_damaged_results_are_named(tmp_path, content, message):
    RunFolder(tmp_path / "run", OPTIONS, {})
    (tmp_path / "run" / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        RunFolder(tmp_path / "run", OPTIONS, {})


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_damaged_kernels_are_named(tmp_path, kept):
    folder = RunFolder(tmp_path / "run", OPTIONS, {})
    folder.add("none", result([[50, 60]]), kernels())
    path = tmp_path / "run" / "kernels" / "none.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"kernels/none\.npz is damaged: "):
        folder.kernels("none")
