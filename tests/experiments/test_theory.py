"""The theory experiments against plain NumPy, SciPy and hand-derived gradients."""

import csv
import json
import subprocess
import sys
from functools import partial
from itertools import combinations

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from experiments import command_line
from experiments.theory import __main__ as theory
from experiments.theory.descent import (
    TRAINED_PAIRS,
    descend,
    pair_similarity,
    squared_cosine,
    train_pairs,
    valid_maps,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def run(*argv):
    return command_line.run(theory.main, theory.Config, argv, prog="theory")


# Plain float64 oracles: a, b are kernels of shape (N,).


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def plain_squared_cosine(a, b):
    return cosine(a, b) ** 2


def squared_cosine_gradient(a, b):
    c, norms = cosine(a, b), np.sqrt((a @ a) * (b @ b))
    return (
        2 * c * (b / norms - c * a / (a @ a)),
        2 * c * (a / norms - c * b / (b @ b)),
    )


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


def plain_descent(gradient, a, b, learning_rate, steps):
    for _ in range(steps):
        step_a, step_b = gradient(a, b)
        a, b = a - learning_rate * step_a, b - learning_rate * step_b
    return a, b


PLAIN_ACTIVATIONS = {
    "feature maps": lambda x: x,
    "after ReLU": lambda x: np.where(x > 0, x, 0),
    "after ELU": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "after LeakyReLU": lambda x: np.where(x > 0, x, 0.01 * x),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "plain_loss", "gradient", "learning_rate"),
    [
        (squared_cosine, plain_squared_cosine, squared_cosine_gradient, 0.1),
        (pair_similarity, plain_similarity, similarity_gradient, 0.01),
    ],
    ids=["4.1", "4.3"],
)
def test_descent_is_that_of_a_plain_loop(loss, plain_loss, gradient, learning_rate):
    rng = np.random.default_rng(0)
    # Of both signs, so that the activations act on the first maps too.
    kernels, signals = rng.normal(0.1, 0.5, (3, 9, 1, 2)), rng.normal(0, 1, (3, 64))
    one = partial(descend, loss=loss, learning_rate=learning_rate, steps=40)
    descents = jax.jit(jax.vmap(one))(kernels, signals)
    for seed, (kernel, signal) in enumerate(zip(kernels, signals, strict=True)):
        old = tuple(kernel[:, 0].T)
        new = plain_descent(gradient, *old, learning_rate, 40)
        before, after = (
            [np.correlate(signal, k, "valid") for k in kernels] for kernels in (old, new)
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
    matrices = train_pairs(jnp.asarray(kernels.T[:, None]), learning_rate=0.01, rounds=3)
    assert matrices.shape == (4, 4, 4)
    for matrix in matrices:
        expected = [[plain_similarity(a, b) for b in kernels] for a in kernels]
        np.testing.assert_allclose(matrix, expected)
        for i, j in ((0, 1), (1, 2), (2, 3)):
            kernels[i], kernels[j] = plain_descent(
                similarity_gradient, kernels[i], kernels[j], 0.01, 1
            )


def test_untrained_pairs_fall_too():
    matrices = theory.four_kernels(theory.Config(seeds=100))
    assert matrices.shape == (100, 11, 4, 4)
    untrained = set(combinations(range(4), 2)) - set(TRAINED_PAIRS)
    assert untrained == {(0, 2), (0, 3), (1, 3)}
    for i, j in untrained:
        assert np.all(matrices[:, -1, i, j] < matrices[:, 0, i, j])


@pytest.mark.usefixtures("x64")
@hypothesis.given(
    taps=st.sampled_from([1, 2, 5]),
    extra=st.sampled_from([0, 7]),
    seed=st.integers(0, 99),
)
def test_inner_product_of_maps_is_that_of_correlations(taps, extra, seed):
    """<F_i, F_j> = <K_i * K_j, X * X> for zero padding N - 1 (section 3)."""
    rng = np.random.default_rng(seed)
    a, b, signal = (rng.normal(size=n) for n in (taps, taps, taps + extra))
    padded = np.pad(signal, taps - 1)
    maps = valid_maps(jnp.stack([a, b], -1)[:, None], jnp.asarray(padded))
    for got, kernel in zip(maps.T, (a, b), strict=True):
        expected = scipy.signal.correlate(padded, kernel, "valid")
        np.testing.assert_allclose(got, expected, atol=1e-12)

    of_kernels = scipy.signal.correlate(a, b, "full")
    of_signal = scipy.signal.correlate(signal, signal, "full")
    middle = len(signal) - 1
    of_signal = of_signal[middle - (taps - 1) : middle + taps]
    np.testing.assert_allclose(
        maps[:, 0] @ maps[:, 1], of_kernels @ of_signal, atol=1e-10
    )


def test_cs_separates_the_maps_and_orthogonality_does_not():
    """The paper's point, with margins far beyond the sampling error of 100 seeds."""
    descents = theory.two_kernels(theory.Config(seeds=100))
    cosine_only, ours = (descents[s].reductions["feature maps"] for s in ("4.1", "4.3"))
    assert descents["4.1"].reductions["kernels' cosine"].min() > 0.99
    assert np.mean(ours > cosine_only) > 0.9
    assert cosine_only.mean() < 0.15 and ours.mean() > 0.7
    # Both start from the same kernels and signals, another for each seed.
    first = [descent.similarity[:, 0] for descent in descents.values()]
    np.testing.assert_array_equal(*first)
    assert len(np.unique(first[0])) > 90


def test_draws_are_uniform_and_shaped_by_the_options():
    config = theory.Config(taps=500, signal_length=3000)
    for values, shape in zip(
        theory.draw(np.uint32(1), config, 4), [(500, 1, 4), (3000,)], strict=True
    ):
        assert values.shape == shape
        assert scipy.stats.kstest(np.ravel(values), "uniform").pvalue > 0.01


def test_seeds_are_numbered_from_the_first():
    config = theory.Config(seeds=3, first_seed=2**32 - 3)
    seeds = theory.over_seeds(lambda seed: seed, config, "4.1")
    np.testing.assert_array_equal(seeds, [2**32 - 3, 2**32 - 2, 2**32 - 1])


# Diverging seeds.


def test_diverged_seeds_are_left_out():
    config = theory.Config(seeds=6)

    def odd_diverge(seed):
        value = seed.astype(jnp.float32)
        return {
            "a": jnp.where(seed % 2 == 1, jnp.inf, value),
            "b": jnp.stack([value] * 2),
        }

    kept = theory.over_seeds(odd_diverge, config, "4.3")
    np.testing.assert_array_equal(kept["a"], [0, 2, 4])
    np.testing.assert_array_equal(kept["b"], [[0, 0], [2, 2], [4, 4]])


def test_too_few_seeds_left_is_an_error():
    message = r"section 4\.3 diverged in 3 of 4 seeds: lower its learning rate"
    with pytest.raises(ValueError, match=message):
        theory.over_seeds(
            lambda seed: jnp.where(seed > 0, jnp.nan, 1.0), theory.Config(seeds=4), "4.3"
        )


# The command.


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seeds", "0"], "--seeds is 0; expected 2 or more"),
        (["--seeds", "-5"], "--seeds is -5; expected 2 or more"),
        (
            ["--seeds", "1000000"],
            "--seeds is 1000000; expected 223696 or less for 300 steps and 10 rounds, "
            "to fit into memory",
        ),
        (["--steps", "0"], "--steps is 0; expected 1 or more"),
        (["--rounds", "-1"], "--rounds is -1; expected 1 or more"),
        (["--taps", "0"], "--taps is 0; expected 1 or more"),
        (["--first-seed", "-1"], "--first-seed is -1; expected 0 or more"),
        (
            ["--first-seed", str(2**32 - 4999)],
            "--first-seed is 4294962297; expected 4294962296 or less for 5000 seeds",
        ),
        (
            ["--taps", "65"],
            "--signal-length is 64; expected at least --taps, 65, for the kernel to fit "
            "into the signal",
        ),
        (["--learning-rate", "0"], "--learning-rate is 0.0; expected more than 0"),
        (
            ["--learning-rate", "nan"],
            "--learning-rate is nan; expected more than 0",
        ),
        (
            ["--cosine-learning-rate", "-0.1"],
            "--cosine-learning-rate is -0.1; expected more than 0",
        ),
    ],
)
def test_bad_option_is_one_line(option, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*option) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_other_results_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "results.json").write_text("theirs")
    assert run("--output", str(tmp_path)) == 2
    assert capsys.readouterr().err == (
        f"error: --output is {tmp_path}, which holds other files; expected a new folder\n"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize(
    ("output", "reason"), [("file", "Not a directory"), ("file/below", "File exists")]
)
def test_output_that_cannot_be_written(output, reason, tmp_path, capsys):
    (tmp_path / "file").write_text("theirs")
    assert run("--output", str(tmp_path / output)) == 2
    assert capsys.readouterr().err == (
        f"error: --output is {tmp_path / output}, which cannot be written: {reason}: "
        f"{tmp_path / 'file'}\n"
    )
    assert (tmp_path / "file").read_text() == "theirs"


def test_command_end_to_end(tmp_path):
    output = tmp_path / "below" / "run"
    smallest = {"seeds": 2, "steps": 1, "rounds": 1, "taps": 2, "signal_length": 3}
    options = [f"--{name.replace('_', '-')}={n}" for name, n in smallest.items()]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.theory", *options, f"--output={output}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"Results and plots: {output}\n")
    assert [path.name for path in output.parent.iterdir()] == ["run"]
    for name in ("reductions", "curves", "pairs"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    results = json.loads((output / "results.json").read_text())
    assert results["config"].items() >= smallest.items()
    assert {"python", "convsim_jax", "jax"} <= results["versions"].keys()
    for name, count in (("reductions", 10), ("pairs", 6)):
        with (output / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(results[name]) == count
        for row, expected in zip(rows, results[name], strict=True):
            assert row == {
                key: "" if value is None else str(value)
                for key, value in expected.items()
            }
    for row in results["reductions"]:
        assert row["low"] <= row["mean"] <= row["high"] and row["seeds"] == 2
