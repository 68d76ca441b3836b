"""Statistics and the table against SciPy and plain counting."""

import numpy as np
import pytest
from scipy import stats

from experiments.classify.summary import (
    curve_rows,
    difference,
    epochs_to_reach,
    interval,
    seed_rows,
    table,
)
from tests.experiments.compare.classify_results import result


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_interval_is_that_of_a_t_test(count):
    values = np.random.default_rng(count).normal(50, 3, count)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean, reach = interval(values)
    np.testing.assert_allclose((mean - reach, mean + reach), (low, high))


def test_interval_of_one_or_no_value_is_nan():
    assert interval(np.array([3.0])).mean == 3.0
    assert np.isnan(interval(np.array([3.0])).reach)
    assert np.isnan(interval(np.array([]))).all()


def test_differences_are_paired_by_seed():
    baseline = result([[1, 50], [1, 60], [1, 70]], diverged_at=[0, 0, 2])
    other = result([[1, 52], [1, 61], [1, 99]])
    np.testing.assert_array_equal(difference(other, baseline), [2, 1])


def test_epochs_to_reach_is_the_first_epoch_at_least_there():
    accuracy = np.array([[10, 90, 80], [90, 10, 10], [10, 10, 10], [np.nan] * 3])
    np.testing.assert_array_equal(epochs_to_reach(accuracy, 90), [2, 1, np.nan, np.nan])


def test_table_says_what_is_to_be_seen():
    results = {
        "none": result([[50.0, 60.0], [50.0, 70.0]]),
        "paper-init": result([[70.0, 71.0], [40.0, 41.0]]),
        "paper-reg": result([[1.0, 2.0], [3.0, 4.0]], scale=1e4),
    }
    lines = table(results).splitlines()
    none, paper, regularized = lines[-3:]
    reach = stats.t.ppf(0.975, 1) * 5
    assert none.split()[:4] == ["none", "65.00", "±", f"{reach:.2f}"]
    assert "2.0 (1 of 2)" in none
    # 71 - 60 = 11 and 41 - 70 = -29: mean -9
    assert f"-9.00 ± {stats.t.ppf(0.975, 1) * 20:.2f}" in paper
    assert "1.0 (1 of 2)" in paper
    assert "0.250 → 0.250" in paper and "123 → 123" in paper
    assert " - " in regularized and "1.2e6 → 1.2e6" in regularized


def test_table_lines_up_within_its_width():
    results = {
        "scale-free-init": result([[98.0, 99.0], [97.0, 98.0]], scale=1e4),
        "none": result([[98.0, 98.0], [98.0, 97.0]], scale=1e-4),
        "control": result([[99.0, 98.0]] * 2, diverged_at=[1, 2]),
    }
    lines = table(results).splitlines()[:-1]
    assert max(map(len, lines)) <= 120
    assert len({len(line) for line in lines[1:]}) == 1
    assert not any("…" in line for line in lines)


def test_table_without_baseline_leaves_its_columns_out():
    text = table({"control": result([[1.0, 2.0], [3.0, 4.0]])})
    assert "none" not in text and "epochs to" not in text and "3.00 ± 12.71" in text


def test_table_reports_seeds_that_diverged():
    nan = np.nan
    some = result([[50, 60], [50, nan], [nan, nan]], diverged_at=[0, 2, 1])
    every = result([[nan, nan]], diverged_at=[1])
    lines = table({"control": some, "paper-reg": every}).splitlines()
    assert lines[-2] == (
        "control: 2 of 3 seeds diverged at epoch 1, 2; its row is of the others"
    )
    assert lines[-1] == "paper-reg: 1 of 1 seeds diverged at epoch 1"
    assert lines[-4].split()[:2] == ["control", "60.00"]
    assert "nan" not in "\n".join(lines)


def test_rows_of_the_csv_files():
    results = {"none": result([[50, 60], [55, 65]], diverged_at=[0, 2])}
    header, rows = seed_rows(results)
    assert header[:5] == ["method", "seed", "strength", "diverged_at", "accuracy"]
    assert [row[:5] for row in rows] == [
        ["none", 0, 0.5, None, 60.0],
        ["none", 1, 0.5, 2, 65.0],
    ]
    assert dict(zip(header, rows[0], strict=True))["norm_end"] == pytest.approx(15.0)
    header, rows = curve_rows(results)
    assert rows[1] == ["none", 0, 2, 60.0, 40.0] and len(rows) == 4
