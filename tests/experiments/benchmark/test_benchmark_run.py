"""The benchmark as a command: a whole run, one that goes on, and bad options."""

import json

import pytest

from experiments import command_line
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import accelerators, counts, networks, parts, report, updates
from experiments.benchmark.__main__ import Config
from experiments.benchmark.parts import DECORRELATED, STEP
from experiments.benchmark.updates import LOSSES, PENALTIES, SGD

TINY = {"first/kernel": (3, 3, 1, 4)}
FEW = ("all pairs", "scale-free cross-channel")
SMALLEST = ["--networks", "cnn", "--repeats", "2", "--no-torch"]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(networks, "kernel_shapes", lambda name: TINY)
    monkeypatch.setattr(updates, "LOSSES", {name: LOSSES[name] for name in FEW})
    monkeypatch.setattr(updates, "PENALTIES", {"OCNN": PENALTIES["OCNN"]})


def run(*argv):
    return command_line.run(benchmark.main, Config, argv, prog="benchmark")


def test_a_run_is_told_and_kept(tiny, tmp_path, capsys, monkeypatch):
    argv = [*SMALLEST, "--step-batch-size", "0", "--output", str(tmp_path)]
    assert run(*argv) == 0
    out = capsys.readouterr().out
    table = (tmp_path / "table.txt").read_text()
    assert table in out and str(tmp_path) in out
    measured = json.loads((tmp_path / "kernels-cnn.json").read_text())
    rows = {row["program"]: row for row in measured}
    assert set(rows) == {SGD, *FEW, "OCNN"}
    for name, row in rows.items():
        low, high = row["quartiles"]
        assert low <= row["median"] <= high and row["weights"] == 36
        (own,) = (x for x in table.splitlines() if x.startswith(f"{name}  "))
        relative = row["median"] / rows[SGD]["median"]
        assert float(own.split()[-5]) == pytest.approx(relative, rel=0.1)
    # The same command again has nothing left to measure.
    monkeypatch.setattr(benchmark, "in_turn", pytest.fail)
    (tmp_path / "table.txt").unlink()
    assert run(*argv) == 0
    assert (tmp_path / "table.txt").read_text() == table
    capsys.readouterr()
    assert run(*argv, "--seconds", "1") == 2
    assert "--output holds results of other options: --seconds" in capsys.readouterr().err
    monkeypatch.setattr(benchmark, "device", lambda: "another")
    assert run(*argv) == 2
    error = capsys.readouterr().err
    assert "--environment is" in error and '"device": "another"' in error


def test_a_run_of_training_alone(monkeypatch, tmp_path, capsys, relaxed_jax):
    monkeypatch.setattr(benchmark, "TRAINED", ("cnn",))
    argv = [*SMALLEST, "--no-losses", "--step-batch-size", "2"]
    assert run(*argv, "--output", str(tmp_path)) == 0
    rows = json.loads((tmp_path / "training-cnn.json").read_text())
    names = [row["program"] for row in rows]
    assert names == [STEP, DECORRELATED, SGD, "all pairs", "scale-free cross-channel"]
    assert {row["weights"] for row in rows} == {113_962}
    table = report.training_table("cnn", rows)
    assert table in capsys.readouterr().out
    made_up = [
        dict(rows[0], program=name, median=seconds)
        for name, seconds in ((STEP, 0.2), (DECORRELATED, 0.23), (SGD, 0.001))
    ]
    lines = report.training_table("cnn", [*made_up, dict(rows[-1], median=0.002)])
    told = [line.split()[-2:] for line in lines.splitlines() if "%" in line]
    assert [share for *_, share in told[1:]] == ["15.00%", "0.50%", "0.50%"]


def test_pytorch_is_left_out_where_it_is_not_to_be_measured(tiny):
    torch = pytest.importorskip("torch", reason="an extra of the benchmark")

    def clock(programs):
        return {name: parts.Timing(1.0, (1.0, 1.0), 1) for name in programs}

    assert torch
    told = {row["program"] for row in parts.kernels("cnn", clock, torch=True)}
    ours = {row["program"] for row in parts.kernels("cnn", clock, torch=False)}
    assert told - ours == {
        "PyTorch: SGD with momentum",
        "PyTorch: adjacent pairs",
        "PyTorch: OCNN",
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--networks", "lenet"], "--networks is 'lenet'; expected resnet18, resnet50"),
        (["--repeats", "1"], "--repeats is 1; expected 2 or more"),
        (["--seconds", "0"], "--seconds is 0.0; expected more than 0"),
        (["--step-batch-size", "-1"], "--step-batch-size is -1; expected 0 or more"),
        (["--no-losses", "--step-batch-size", "0"], "--no-losses is given with"),
        (["--repeats", "x"], "--repeats is 'x'; expected an int"),
        (["--rates"], "Unrecognized options: --rates"),
        (["--compile-for", "b200"], "--compile-for is 'b200'; expected h100, v4, v5e"),
    ],
)
def test_bad_options(argv, message, capsys):
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(("kind", "package"), [("h100", "cuda12"), ("v5e", "libtpu")])
def test_a_compiler_that_is_not_there(kind, package, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(accelerators, "folders", lambda module: [])
    assert run("--compile-for", kind, "--output", str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert package in err and "[accelerators]" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_compiled_is_told_and_kept(monkeypatch, tmp_path, capsys):
    """With made-up counts: `make accelerators` compiles in earnest."""
    made_up = {
        "program": SGD,
        "layout": counts.SHARDED,
        "kernels": 20,
        "moved": 100e6,
        "memory": 17e9,
        "fits": False,
        "extra_memory": 5e6,
        "times_moved": 5.0,
        "times_memory": 0.25,
        "memory_seconds": 3e-5,
        "launch_seconds": 4e-5,
        "exchanged": {"all-reduce": [4_000_000, 2_000_000]},
    }
    monkeypatch.setattr(accelerators, "prepare", lambda kinds: None)
    monkeypatch.setattr(counts, "kernels", lambda kind, name, clock: [made_up])
    monkeypatch.setattr(counts, "step", lambda kind, name, size, clock: [made_up])
    argv = ["--compile-for", "h100", "v5e", "--output", str(tmp_path)]
    assert run(*argv) == 0
    lines = capsys.readouterr().out.splitlines()
    kernels = [x.split() for x in lines if x.startswith("SGD")]
    steps = [x.split() for x in lines if x.startswith("4 chips")]
    assert len(kernels) == len(steps) == 4  # two networks, two accelerators
    assert kernels[0][3:] == ["20", "5.0", "1.0", "0.25", "0.030", "0.040"]
    assert " ".join(steps[0]).endswith("20 0.10 17 NO 0.030 0.040 2 all-reduce of 6.0 MB")
    assert run(*argv) == 0  # nothing is left
