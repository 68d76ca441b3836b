"""Plots of made-up results: drawn without a warning, and of what they say."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.classify import plots
from experiments.classify.results import RunFolder
from experiments.methods import METHODS
from tests.experiments.compare.classify_results import kernels, result


@pytest.fixture
def folder(tmp_path):
    """A run of two methods, two seeds of which one diverged, and two epochs."""
    folder = RunFolder(tmp_path / "run", {}, {})
    nan = np.nan
    folder.add("none", result([[50, 60], [50, nan], [52, 64]], [0, 2, 0]), kernels())
    folder.add("paper-init", result([[70, 80], [70, 80], [70, 81]]), kernels())
    return folder


def test_all_plots_are_written(folder):
    plots.draw(folder, folder.results, "a title")
    assert {path.stem for path in folder.path.glob("*.png")} == {
        "accuracy",
        "layers",
        "similarity_matrix",
    }


def test_accuracy_is_the_mean_of_finished_seeds_and_less_the_baseline(folder):
    curves, finals = plots.accuracy(folder.results).axes
    np.testing.assert_array_equal(curves.lines[0].get_ydata(), [51, 62])
    np.testing.assert_array_equal(curves.lines[1].get_ydata(), [70, 241 / 3])
    points = [line for line in finals.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(points[1].get_xdata(), [20, 17])
    names = [label.get_text() for label in finals.get_yticklabels()]
    assert names == ["none", "paper-init"]


@pytest.mark.parametrize("accuracies", [[[50.0]], [[np.nan]]])
def test_one_seed_one_epoch_no_baseline(folder, accuracies):
    diverged = [int(np.isnan(accuracies[0][0]))]
    results = {"paper-init": result(accuracies, diverged)}
    plots.draw(folder, results, "a title")
    assert (folder.path / "similarity_matrix.png").exists()
    assert (folder.path / "accuracy.png").exists() == (diverged == [0])


def test_every_method_has_a_colour_of_its_own():
    assert list(plots.COLOURS) == list(METHODS)
    assert len(set(map(to_hex, plots.COLOURS.values()))) == len(METHODS)
