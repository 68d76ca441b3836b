"""Which form tells how alike maps are: each form, and the command."""

import csv

import numpy as np
import pytest
from scipy.stats import rankdata

from experiments import command_line, predictors
from tests.library import oracle

KERNEL = np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype(np.float32)
MAPS = np.random.default_rng(1).normal(size=(5, 4, 3, 4))
FORMS = predictors.forms(KERNEL, MAPS)


def run(*arguments):
    prog = "predictors"
    return command_line.run(predictors.main, predictors.Config, arguments, prog=prog)


def test_forms_of_the_kernels_are_those_of_plain_loops():
    cross = oracle.similarity_matrix(KERNEL, channels="cross", normalize=True)
    expected = {
        "the paper's CS": oracle.similarity_matrix(KERNEL),
        "CS_cross, scale-free": cross,
        "kernel cosine": np.abs(oracle.kernel_cosine_similarity(KERNEL)),
        "the input's own S": np.abs(np.corrcoef(MAPS.reshape(-1, 4).T)),
    }
    for form, matrix in expected.items():
        np.testing.assert_allclose(FORMS[form], matrix, rtol=1e-4, atol=1e-6)


def test_an_even_and_an_odd_kernel_have_no_symmetric_similarity():
    kernel = np.array([[1.0, 1.0], [2.0, 0.0], [1.0, -1.0]]).reshape(3, 1, 1, 2)
    maps = MAPS[..., :2]
    found = predictors.forms(kernel.astype(np.float32), maps)
    assert found["CS_sym, scale-free"][0, 1] == pytest.approx(0, abs=1e-6)
    assert found["CS_cross, scale-free"][0, 1] > 0.1


def test_the_symmetric_similarity_of_one_tap_is_that_of_the_cosine():
    kernel = KERNEL[:1, :1]
    expected = (1 + oracle.kernel_cosine_similarity(kernel) ** 2) / 2
    found = predictors.forms(kernel, MAPS)["CS_sym, scale-free"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_image_metric_is_a_sum_over_all_taps():
    taps = [(i, j) for i in range(3) for j in range(2)]
    inner = np.zeros((4, 4))
    for (i, j), (k, m) in ((a, b) for a in taps for b in taps):
        alike = 0.9 ** np.hypot(i - k, j - m)
        inner += alike * KERNEL[i, j].T @ KERNEL[k, m]
    norms = np.sqrt(np.diagonal(inner))
    expected = np.abs(inner / norms / norms[:, None])
    np.testing.assert_allclose(FORMS["image metric"], expected, rtol=1e-4)


def test_ranks_of_all_pairs_are_correlated_without_those_of_a_constant_map():
    generator = np.random.default_rng(2)
    said, alike = generator.uniform(size=(2, 5, 5))
    alike[:, 3] = alike[3] = np.nan
    pairs = [(0, 1), (0, 2), (0, 4), (1, 2), (1, 4), (2, 4)]
    ranks = [rankdata([matrix[pair] for pair in pairs]) for matrix in (said, alike)]
    expected = np.corrcoef(ranks)[0, 1]
    assert predictors.rank_correlation(said, alike) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seeds", "0"], "--seeds is 0; expected 1 or more"),
        (["--dataset", "cifar"], "--dataset is 'cifar'; expected"),
        (["--dataset", "digits", "--train-size", "5"], "--train-size is 5; expected 10"),
    ],
)
def test_bad_option_is_one_line(option, message, tmp_path, capsys):
    assert run(*option, "--output", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation promotes
def test_command_end_to_end(tmp_path, capsys):
    options = {"dataset": "digits", "train_size": 128, "epochs": 1, "seeds": 2}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    assert run(*given, f"--output={tmp_path / 'run'}") == 0
    table = capsys.readouterr().out
    with (tmp_path / "run" / "predictors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(FORMS) * 2 * 2 * 2
    for row in rows:
        assert -1 <= float(row["correlation"]) <= 1 and row["form"] in table
    # The maps of other images are told by their own covariance best.
    random = [row for row in rows if row["kernels"] == "random"]
    told = {row["form"]: float(row["correlation"]) for row in random}
    assert max(told, key=told.get) == "the input's own S"
