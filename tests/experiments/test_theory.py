"""The theory experiments against plain NumPy, SciPy and hand-derived gradients."""

import csv
import json
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from experiments import command_line, theory


def run(*argv):
    return command_line.run(theory.main, theory.Config, argv, prog="theory")


# Plain float64 oracles: a, b are kernels of shape (N,).


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def squared_cosine_gradient(a, b):
    c, norms = cosine(a, b), np.sqrt((a @ a) * (b @ b))
    return [2 * c * (y / norms - c * x / (x @ x)) for x, y in ((a, b), (b, a))]


def plain_similarity(a, b):
    return np.sum(np.correlate(a, b, "full") ** 2)


def similarity_gradient(a, b):
    """CS = sum_l r[l]^2 with r[l] = sum_n a[n] b[n + l], differentiated by hand."""
    N = len(a)
    gradient = np.zeros((2, N))
    for lag in range(1 - N, N):
        inside = range(max(0, -lag), min(N, N - lag))
        r = sum(a[n] * b[n + lag] for n in inside)
        for n in inside:
            gradient[0, n] += 2 * r * b[n + lag]
            gradient[1, n + lag] += 2 * r * a[n]
    return gradient


def plain_descent(gradient, a, b, rate, steps):
    for _ in range(steps):
        step_a, step_b = gradient(a, b)
        a, b = a - rate * step_a, b - rate * step_b
    return a, b


PLAIN_ACTIVATIONS = {
    "feature maps": lambda x: x,
    "after ReLU": lambda x: np.where(x > 0, x, 0),
    "after ELU": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "after LeakyReLU": lambda x: np.where(x > 0, x, 0.01 * x),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("section", ["4.1", "4.3"])
def test_descent_is_that_of_a_plain_loop(section):
    loss, plain_loss, gradient, rate = {
        "4.1": (
            lambda kernel: theory.cosine(kernel) ** 2,
            lambda a, b: cosine(a, b) ** 2,
            squared_cosine_gradient,
            0.1,
        ),
        "4.3": (theory.pair_similarity, plain_similarity, similarity_gradient, 0.01),
    }[section]
    rng = np.random.default_rng(0)
    # Of both signs, so that the activations act on the first maps too.
    kernels, signals = rng.normal(0.1, 0.5, (3, 9, 1, 2)), rng.normal(0, 1, (3, 64))
    one = partial(theory.descend, loss=loss, rate=rate, steps=40)
    descents = jax.jit(jax.vmap(one))(kernels, signals)
    for seed, (kernel, signal) in enumerate(zip(kernels, signals, strict=True)):
        old = tuple(kernel[:, 0].T)
        new = plain_descent(gradient, *old, rate, 40)
        before, after = (
            [scipy.signal.correlate(signal, k, "valid") for k in kernels]
            for kernels in (old, new)
        )
        expected = {"kernels' cosine": 1 - abs(cosine(*new)) / abs(cosine(*old))} | {
            name: 1 - abs(cosine(*map(activation, after))) / abs(cosine(*before))
            for name, activation in PLAIN_ACTIVATIONS.items()
        }
        got = jax.tree.map(lambda leaf, seed=seed: leaf[seed], descents)
        assert got.loss.shape == got.similarity.shape == (41,)
        np.testing.assert_allclose(got.loss[0], plain_loss(*old))
        np.testing.assert_allclose(got.loss[-1], plain_loss(*new), rtol=1e-6)
        np.testing.assert_allclose(got.similarity[0], abs(cosine(*before)))
        np.testing.assert_allclose(got.similarity[-1], abs(cosine(*after)))
        assert got.reductions.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(got.reductions[name], value, err_msg=name)


@pytest.mark.usefixtures("x64")
def test_pairs_are_trained_one_step_each_in_turn():
    kernels = np.random.default_rng(0).random((4, 5))
    matrices = theory.train_pairs(jnp.asarray(kernels.T[:, None]), 0.01, 3)
    assert matrices.shape == (4, 4, 4)
    for matrix in matrices:
        expected = [[plain_similarity(a, b) for b in kernels] for a in kernels]
        np.testing.assert_allclose(matrix, expected)
        for i, j in ((0, 1), (1, 2), (2, 3)):
            kernels[i], kernels[j] = plain_descent(
                similarity_gradient, kernels[i], kernels[j], 0.01, 1
            )


def test_cs_separates_the_maps_and_orthogonality_does_not():
    """The paper's point, with margins far beyond the sampling error of 100 seeds."""
    descents = theory.two_kernels(theory.Config(seeds=100))
    cosine_only, ours = (descents[s].reductions["feature maps"] for s in ("4.1", "4.3"))
    assert descents["4.1"].reductions["kernels' cosine"].min() > 0.99
    assert np.mean(ours > cosine_only) > 0.9
    assert cosine_only.mean() < 0.15 and ours.mean() > 0.7
    matrices = theory.four_kernels(theory.Config(seeds=100))
    for i, j in ((0, 2), (0, 3), (1, 3)):  # never trained
        assert np.all(matrices[:, -1, i, j] < matrices[:, 0, i, j])


def test_two_kernels_descend_from_the_same_draws_another_for_each_seed(monkeypatch):
    monkeypatch.setattr(theory, "descend", lambda *draw, **_: draw)
    one, other = theory.two_kernels(theory.Config(seeds=100)).values()
    for values, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(values, same)
        assert len(np.unique(values.reshape(100, -1), axis=0)) == 100


def test_draws_are_uniform_and_seeds_are_numbered_from_the_first():
    def draws(first, seeds):
        config = theory.Config(seeds=seeds, first_seed=first, taps=500, signal_length=900)
        return theory.over_seeds(lambda *draw: draw, config, "4.1", kernels=4)

    last = draws(2**32 - 3, 3)
    for values, shape in zip(last, [(3, 500, 1, 4), (3, 900)], strict=True):
        assert values.shape == shape
        assert scipy.stats.kstest(np.ravel(values[0]), "uniform").pvalue > 0.01
    np.testing.assert_array_equal(draws(2**32 - 2, 2)[0], last[0][1:])


def test_diverged_seeds_are_left_out_and_too_few_are_an_error(capsys):
    def diverge(share):
        def experiment(kernel, signal):
            b = jnp.where(signal[0] < share, jnp.nan, signal[0])
            return {"kernel": kernel, "b": b}

        return theory.over_seeds(experiment, theory.Config(seeds=40), "4.3", kernels=2)

    kept = diverge(0.5)
    assert kept["b"].min() >= 0.5 and len(kept["kernel"]) == len(kept["b"]) > 5
    assert f"diverged in {40 - len(kept['b'])} of 40 seeds" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"section 4\.3 diverged in .* of 40 seeds"):
        diverge(0.999)


# Statistics.


def test_mean_interval_and_z_of_a_known_sample():
    sample = 0.846 + np.tile([-0.2, 0.2], 200) + 0.01
    row = theory.reduction_row("4.3", "feature maps", sample)
    low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    np.testing.assert_allclose((row["mean"], row["low"], row["high"]), (0.856, low, high))
    error = np.sqrt(sample.var(ddof=1) / 400 + 0.169**2 / 5000 + 0.001**2 / 12)
    np.testing.assert_allclose(row["z"], 0.01 / error)
    # A reference without a deviation takes that of the sample.
    row = theory.reduction_row("4.1", "after ReLU", 0.081 + np.tile([-0.03, 0.03], 2500))
    assert row["reference_deviation"] is None
    expected = 0.001 / np.sqrt(2 * 0.03**2 / 5000 + 0.001**2 / 12)
    np.testing.assert_allclose(row["z"], expected, rtol=1e-3)


def test_pair_rows_are_those_of_a_plain_loop():
    matrices = np.random.default_rng(0).uniform(1, 2, (5, 3, 4, 4))
    rows = [theory.pair_row(pair, matrices) for pair in combinations(range(4), 2)]
    trained = [row["pair"] for row in rows if row["trained"]]
    assert trained == ["(1, 2)", "(2, 3)", "(3, 4)"]
    for row, (i, j) in zip(rows, combinations(range(4), 2), strict=True):
        for when, t in (("before", 0), ("after", -1)):
            values = [seed[t][i, j] for seed in matrices]
            free = [s[t][i, j] / np.sqrt(s[t][i, i] * s[t][j, j]) for s in matrices]
            np.testing.assert_allclose(row[when], np.mean(values))
            np.testing.assert_allclose(row[f"scale_free_{when}"], np.mean(free))
        fell = [seed[-1][i, j] < seed[0][i, j] for seed in matrices]
        assert row["fell"] == np.mean(fell)


# The command.


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seeds", "1000000"], "--seeds is 1000000; expected 223696 or less"),
        (["--taps", "65"], "--signal-length is 64; expected 65 or more"),
        (["--learning-rate", "nan"], "--learning-rate is nan; expected more than 0"),
        (["--output", "file"], "--output is file, which cannot be written"),
        (["--output", "."], "--output is ., which holds something other than a run"),
    ],
)
def test_bad_option_is_one_line(option, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("theirs")
    assert run(*option) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_command_end_to_end(tmp_path, capsys):
    output = tmp_path / "below" / "run"
    smallest = {"seeds": 2, "steps": 1, "rounds": 1, "taps": 2, "signal_length": 3}
    options = [f"--{name.replace('_', '-')}={n}" for name, n in smallest.items()]
    assert run(*options, f"--output={output}") == 0
    assert capsys.readouterr().out.endswith(f"Results and plots: {output}\n")
    for name in ("reductions", "curves"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((output / "results.json").read_text())
    assert results["config"].items() >= smallest.items()
    for name, count in (("reductions", 10), ("pairs", 6)):
        with (output / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(results[name]) == count
        for row, expected in zip(rows, results[name], strict=True):
            values = ["" if value is None else str(value) for value in expected.values()]
            assert list(row.values()) == values
    for row in results["reductions"]:
        assert row["low"] <= row["mean"] <= row["high"] and row["seeds"] == 2
