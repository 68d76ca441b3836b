"""Statistics, tables and plots of the theory experiments."""

from dataclasses import asdict
from itertools import combinations

import numpy as np
import scipy.stats
from rich.console import Console

from experiments.theory import __main__ as theory
from experiments.theory import plots as theory_plots
from experiments.theory.descent import Descent
from experiments.theory.report import (
    MAX_Z,
    REFERENCE_SETTINGS,
    REFERENCES,
    compare,
    make_report,
    other_settings,
    pair_changes,
)


def test_mean_interval_and_z_of_a_known_sample():
    reference = REFERENCES["4.3", "feature maps"]
    sample = reference.mean + np.tile([-0.2, 0.2], 200)
    row = compare("4.3", "feature maps", sample)
    deviation = 0.2 * np.sqrt(400 / 399)
    low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    np.testing.assert_allclose((row.mean, row.deviation), (reference.mean, deviation))
    np.testing.assert_allclose((row.low, row.high), (low, high))
    assert row.seeds == 400 and row.agrees and abs(row.z) < 1e-9

    # The rounding of the reference is far below both sampling errors here.
    shift = MAX_Z * np.sqrt(deviation**2 / 400 + 0.169**2 / 5000)
    assert compare("4.3", "feature maps", sample + 0.99 * shift).agrees
    assert not compare("4.3", "feature maps", sample - 1.02 * shift).agrees


def test_rounding_of_the_reference_is_no_difference():
    exact = np.full(10, 0.99996)
    assert compare("4.1", "kernels' cosine", exact).agrees
    assert not compare("4.1", "kernels' cosine", exact - 0.002).agrees


def test_a_reference_without_deviation_takes_that_of_the_sample():
    sample = 0.080 + np.tile([-0.03, 0.03], 2500) + 0.001
    row = compare("4.1", "after ReLU", sample)
    assert row.reference_deviation is None
    expected = 0.001 / np.sqrt(2 * 0.03**2 / 5000 + 0.001**2 / 12)
    np.testing.assert_allclose(row.z, expected, rtol=1e-3)


def test_pair_changes_are_those_of_a_plain_loop():
    matrices = np.random.default_rng(0).uniform(1, 2, (5, 3, 4, 4))
    rows = pair_changes(matrices)
    assert [row.pair for row in rows if row.trained] == ["(1, 2)", "(2, 3)", "(3, 4)"]
    for row, (i, j) in zip(rows, combinations(range(4), 2), strict=True):
        before, after = ([seed[moment][i, j] for seed in matrices] for moment in (0, -1))
        scale_free = [
            np.mean([s[t][i, j] / np.sqrt(s[t][i, i] * s[t][j, j]) for s in matrices])
            for t in (0, -1)
        ]
        np.testing.assert_allclose(
            (row.before, row.after, row.scale_free_before, row.scale_free_after),
            (np.mean(before), np.mean(after), *scale_free),
        )
        assert row.fell == sum(b > a for b, a in zip(before, after, strict=True)) / 5


def test_a_kernel_that_vanished_has_scale_free_similarity_zero():
    matrices = np.zeros((2, 2, 4, 4))
    assert {row.scale_free_after for row in pair_changes(matrices)} == {0.0}
    theory_plots.pairs(matrices)


def test_defaults_are_the_settings_of_the_reference():
    assert other_settings(asdict(theory.Config())) == {}
    assert REFERENCE_SETTINGS.keys() < asdict(theory.Config()).keys()
    assert other_settings(asdict(theory.Config(steps=5, seeds=7))) == {"steps": 5}


def descents_of(seeds):
    values = {name: np.full(seeds, 0.5) for _, name in REFERENCES}
    curve = np.linspace(1, 0.5, 3 * seeds).reshape(seeds, 3)
    return {section: Descent(curve, curve, values) for section in ("4.1", "4.3")}


def printed(report):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report)
    return capture.get()


def test_report_says_what_differs_and_what_was_left_out():
    matrices = np.stack([np.ones((3, 4, 4)), np.full((3, 4, 4), 2.0)], 1)
    config = asdict(theory.Config(seeds=5))
    text = printed(make_report(descents_of(4), matrices, config))
    assert "0 of 10 reductions agree" in text and text.count("DIFFERS") == 11
    assert "mean CS falls for 0 of 6 pairs, in the paper for all: DIFFERS" in text
    assert "4.1: 1 of 5 seeds diverged: left out." in text
    assert "4.4: 2 of 5 seeds diverged: left out." in text


def test_report_of_other_settings_compares_nothing():
    matrices = np.stack([np.full((4, 4, 4), 2.0), np.ones((4, 4, 4))], 1)
    config = asdict(theory.Config(seeds=4, steps=5))
    report = make_report(descents_of(4), matrices, config)
    assert {(row.z, row.agrees) for row in report.reductions} == {(None, None)}
    text = printed(report)
    assert "Not compared: the reference has other settings than steps 5." in text
    assert "left out" not in text and "DIFFERS" not in text
