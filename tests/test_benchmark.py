"""The benchmark: networks as published, programs that agree, and a whole run."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import command_line
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import parts, rates, report, torch_programs
from experiments.benchmark.__main__ import Config
from experiments.benchmark.networks import NETWORKS, random_kernels, small
from experiments.benchmark.programs import (
    DIRECT,
    LOSSES,
    PENALTIES,
    SGD,
    direct,
    losses,
    penalties,
    yardsticks,
)
from experiments.benchmark.timing import Program, Timing, compiled, in_turn
from experiments.models import build
from tests import oracle

TINY = [(3, 3, 1, 4), (1, 1, 4, 3)]
# All parameters that the papers and torchvision count, less those of the last linear
# layer and, two a channel, of batch normalisation (VGG: less the three linear layers
# and one bias a channel).
CONV_PARAMETERS = {
    "resnet18": 11_173_962 - (512 * 10 + 10) - 2 * 4_800,
    "resnet50": 25_557_032 - (2048 * 1000 + 1000) - 2 * 26_560,
    "vgg19": 143_667_240 - 123_642_856 - 5_504,
    "wrn28-10": 36_479_194 - (640 * 10 + 10) - 2 * 8_976,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_published_number_of_weights(name):
    assert sum(map(np.prod, NETWORKS[name]())) == CONV_PARAMETERS[name]


@pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation promotes
@pytest.mark.parametrize("name", NETWORKS)
def test_models_are_made_of_those_kernels(name):
    model = build({"resnet50": "resnet50-imagenet"}.get(name, name), classes=10)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    shapes = [leaf.shape for leaf in jax.tree.leaves(variables["params"])]
    kernels = [shape for shape in shapes if len(shape) == 4]
    assert sorted(kernels) == sorted(NETWORKS[name]())


def test_kernels_have_the_variance_of_an_initializer():
    (kernel,) = random_kernels([(3, 3, 32, 64)]).values()
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(9 * 32), rtol=0.02)


def test_small_kernels_of_the_large_windows():
    kernels = random_kernels([(3, 3, 2, 4), (1, 1, 2, 2), (3, 3, 1, 4), (3, 3, 4, 4)])
    shapes = [kernel.shape for kernel in small(kernels, 72).values()]
    assert shapes == [(3, 3, 2, 4), (3, 3, 1, 4)]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_the_options(name):
    kernels = random_kernels(TINY)
    value, gradient = losses()[name](kernels)
    exact = sum(
        oracle.convolutional_similarity(np.asarray(kernel), **LOSSES[name])
        for kernel in kernels.values()
    )
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, kernels)


def test_definition_agrees():
    kernels = random_kernels(TINY)
    expected, slopes = losses()["adjacent pairs"](kernels)
    value, gradient = direct()(kernels)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient,
        slopes,
    )


def test_pytorch_agrees():
    pytest.importorskip("torch", reason="an extra of the benchmark")
    kernels = random_kernels(TINY)
    calls = torch_programs.programs(kernels).values()
    for call, ours in zip(
        calls, (losses()["adjacent pairs"], penalties()["OCNN"]), strict=True
    ):
        value, slopes = call()
        expected, gradient = ours(kernels)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for slope, other in zip(slopes, gradient.values(), strict=True):
            there = np.transpose(other, (3, 2, 0, 1))
            np.testing.assert_allclose(slope, there, rtol=1e-4, atol=1e-5)


def test_yardsticks():
    kernels = random_kernels(TINY)
    programs = yardsticks(kernels)
    copy, arguments = programs["copy"]
    jax.tree.map(np.testing.assert_array_equal, copy(*arguments), kernels)
    update, arguments = programs[SGD]
    updated, _ = update(*arguments)  # the gradient is the kernels themselves
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 0.9 * b, rtol=1e-6), updated, kernels
    )


def test_programs_run_in_turn_and_slow_ones_less_often():
    calls = []

    def program(name, seconds):
        return Program(lambda: (calls.append(name), time.sleep(seconds)), 1)

    timings = in_turn(
        {"slow": program("slow", 0.03), "fast": program("fast", 0)},
        seconds=0.01,
        repeats=5,
    )
    assert calls == ["slow", "fast"] * 3 + ["fast"] * 3
    assert (timings["slow"].calls, timings["fast"].calls) == (2, 5)
    assert timings["slow"].median > 0.03


def test_time_of_a_program_is_that_of_one_of_its_runs():
    program = Program(lambda: time.sleep(0.03), 1, times=1000)
    timing = in_turn({"often": program}, seconds=0.1, repeats=9)["often"]
    assert 0.03e-3 <= timing.median < 0.03
    assert timing.calls <= 4  # that many take more than 0.1 s


def test_compiled_program_runs_as_often_as_it_says():
    calls = []

    def counted(kernels):
        jax.debug.callback(lambda: calls.append(1))
        return kernels["x"] + 1

    program = compiled(counted, {"x": jnp.ones(3)}, times=5)
    np.testing.assert_array_equal(program.call(), [2, 2, 2])
    jax.effects_barrier()
    assert len(calls) == program.times == 5


def test_compiled_program_knows_its_memory():
    x = jnp.ones((256, 256))

    def two_products(kernels):
        return (kernels["x"] @ kernels["x"]) @ kernels["x"]

    program = compiled(two_products, {"x": x})
    assert program.extra_memory >= 1  # the first product
    assert program.weights == x.size
    assert program.compile_seconds > 0
    np.testing.assert_array_equal(program.call(), jnp.full_like(x, 256.0**2))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", lambda: TINY)
    monkeypatch.setattr(benchmark, "WIDTHS", (2,))
    monkeypatch.setattr(parts, "FIXED", 2)
    monkeypatch.setattr(parts, "GROWTH", {"M": (2, 4)})


def run(*argv):
    return command_line.run(benchmark.main, Config, argv, prog="benchmark")


SMALLEST = ["--networks", "tiny", "--repeats", "2", "--max-width", "64"]
SMALLEST += ["--step-batch-size", "0", "--no-torch"]


def test_a_run_is_told_and_kept(tiny, tmp_path, capsys, monkeypatch):
    argv = [*SMALLEST, "--output", str(tmp_path)]
    assert run(*argv) == 0
    out = capsys.readouterr().out
    assert str(tmp_path) in out
    table = (tmp_path / "table.txt").read_text()
    assert table in out
    measured = json.loads((tmp_path / "tiny.json").read_text())
    rows = {row["program"]: row for row in measured}
    assert set(rows) == {"copy", SGD, DIRECT, *LOSSES, *PENALTIES}
    sgd = rows[SGD]["median"] / rows[SGD]["weights"]
    for name, row in rows.items():
        low, high = row["quartiles"]
        assert low <= row["median"] <= high
        relative = row["median"] / row["weights"] / sgd
        # In the table of all networks, and in the network's own.
        starts = (f"{name}  ", f"{name} (")
        summary, own = (row for row in table.splitlines() if row.startswith(starts))
        assert float(summary.split()[-1]) == pytest.approx(relative, rel=0.1)
        assert float(own.split()[-5]) == pytest.approx(relative, rel=0.1)
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    # The same command again has nothing left to measure.
    monkeypatch.setattr(benchmark, "in_turn", None)
    (tmp_path / "table.txt").unlink()
    assert run(*argv) == 0
    assert (tmp_path / "table.txt").read_text() == table
    capsys.readouterr()
    assert run(*argv, "--seconds", "1") == 2
    assert "--output holds results of other options: --seconds" in capsys.readouterr().err


def row(program, median, **more):
    return {"program": program, "median": median, "steps": 2, "batch_size": 50, **more}


def test_table_of_training():
    rows = [row("training step", 0.5, dtype="float32")]
    rows += [row("all pairs of its kernels", 0.0125)]
    alone = report.training_table({"cnn": rows}).splitlines()
    assert alone[1].startswith("training, 50 images of 32x32 a step, float32  a second")
    # 2 steps of 50 images in half a second; a step of 250 ms, the loss 12.5 ms.
    assert alone[-1].split() == ["cnn", "200", "250", "12", "5.00%"]
    rows += [row("PyTorch", 0.8), row("PyTorch, channels last", 0.4)]
    table = report.training_table({"cnn": rows, "resnet18": rows})
    cells = ["200", "125", "250", "0.80", "250", "12", "5.00%"]
    assert [line.split() for line in table.splitlines()[-2:]] == [
        ["cnn", *cells],
        ["resnet18", *cells],
    ]


def test_a_run_of_training_alone(monkeypatch, tmp_path, capsys, relaxed_jax):
    monkeypatch.setattr(benchmark, "TRAINED", ("cnn",))
    argv = ["--no-losses", "--no-torch", "--step-batch-size", "2", "--repeats", "2"]
    assert run(*argv, "--output", str(tmp_path)) == 0
    rows = json.loads((tmp_path / "training-cnn.json").read_text())
    assert [row["program"] for row in rows] == [
        "training step",
        "all pairs of its kernels",
    ]
    assert {row["weights"] for row in rows} == {113_962}
    table = report.training_table({"cnn": rows})
    assert table in (tmp_path / "table.txt").read_text()
    assert table in capsys.readouterr().out
    assert not (tmp_path / "cost.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--networks", "lenet"], "--networks is 'lenet'; expected resnet18, resnet50"),
        (["--repeats", "1"], "--repeats is 1; expected 2 or more"),
        (["--seconds", "0"], "--seconds is 0.0; expected more than 0"),
        (["--max-width", "1"], "--max-width is 1; expected 64 or more"),
        (["--step-batch-size", "-1"], "--step-batch-size is -1; expected 0 or more"),
        (
            ["--no-losses", "--step-batch-size", "0"],
            "--no-losses is given with --step-batch-size 0; expected one of the two",
        ),
        (["--repeats", "x"], "--repeats is 'x'; expected a whole number"),
    ],
)
def test_bad_options(argv, message, capsys):
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("count", [16, 64])
def test_multiply_adds(count):
    x = 0.25
    chains = [x + i for i in range(4)]
    for _ in range(count // 4):
        chains = [y * x + x for y in chains]
    result = rates.multiply_adds(count, jnp.full(3, x))
    np.testing.assert_allclose(result, np.full(3, sum(chains)), rtol=1e-6)
    operations = jax.make_jaxpr(lambda x: rates.multiply_adds(count, x))(jnp.ones(3))
    assert str(operations).count("mul ") == count


def test_rates_are_of_bytes_and_operations(monkeypatch):
    took = {"copy": 2.0, "read": 0.5, "few": 1.0, "many": 4.0}
    monkeypatch.setattr(
        rates,
        "in_turn",
        lambda programs, **_: {name: Timing(took[name], (), 1) for name in programs},
    )
    measured = rates.rates(1024)
    expected = [8 * 1024 / 2e9, 4 * 1024 / 0.5e9, 48 * 1024 / 3e9]
    np.testing.assert_allclose(list(measured.values()), expected, rtol=1e-12)
