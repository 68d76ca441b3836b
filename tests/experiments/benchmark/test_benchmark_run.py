"""The benchmark as a command: a whole run, one that goes on, and bad options."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from experiments import command_line, run_folder
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import environment, parts, report, torch_programs
from experiments.benchmark.__main__ import Config
from experiments.benchmark.networks import NETWORKS
from experiments.benchmark.programs import DIRECT, LOSSES, PENALTIES, SGD
from experiments.benchmark.timing import Program

TINY = [(3, 3, 1, 4), (1, 1, 4, 3)]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", lambda: TINY)
    monkeypatch.setattr(benchmark, "WIDTHS", (2,))
    monkeypatch.setattr(parts, "FIXED", 2)
    monkeypatch.setattr(parts, "GROWTH", {"M": (2, 4)})


def run(*argv):
    return command_line.run(benchmark.main, Config, argv, prog="benchmark")


SMALLEST = ["--networks", "tiny", "--repeats", "2", "--max-width", "64"]
SMALLEST += ["--step-batch-size", "0"]


def test_a_run_is_told_and_kept(tiny, tmp_path, capsys, monkeypatch):
    argv = [*SMALLEST, "--no-torch", "--output", str(tmp_path)]
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


def measured_on(monkeypatch, device="2 cores", jaxlib="0.10.2", **torch):
    """Lets the benchmark find that device and those versions; PyTorch only if named."""
    versions = {"jax": "0.10.2", "jaxlib": jaxlib, **torch}

    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(environment, "device", lambda: device)
    monkeypatch.setattr(run_folder, "version", version)


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ({"device": "H100"}, {}, "device is 2 cores, and was H100"),
        ({}, {"jaxlib": "0.10.3"}, "jaxlib is 0.10.3, and was 0.10.2"),
        ({}, {"torch": "2.6.0"}, "torch is 2.6.0, and was absent"),
        ({"torch": "2.6.0"}, {}, "torch is absent, and was 2.6.0"),
    ],
)
def test_a_folder_is_of_one_environment(
    before, after, difference, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(benchmark, "parts_of", lambda config, torch: {})
    argv = ["--no-losses", "--output", str(tmp_path)]
    measured_on(monkeypatch, **before)
    assert run(*argv) == 0
    told = (tmp_path / "table.txt").read_text()
    config = (tmp_path / "config.json").read_text()
    assert told.startswith(f"Measured on {before.get('device', '2 cores')}; convsim_jax ")
    measured_on(monkeypatch, **after)
    capsys.readouterr()
    assert run(*argv) == 2
    assert capsys.readouterr().err == (
        "error: --output holds results of another environment: "
        f"{difference} in {tmp_path / 'config.json'}\n"
    )
    assert (tmp_path / "table.txt").read_text() == told
    assert (tmp_path / "config.json").read_text() == config
    measured_on(monkeypatch, **before)
    assert run(*argv) == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"options": {}}', "device is 2 cores, and was absent in"),
        ("[]", "config.json is damaged: it names no options"),
    ],
)
def test_a_folder_of_no_environment_is_refused(
    config, message, monkeypatch, tmp_path, capsys
):
    measured_on(monkeypatch)
    (tmp_path / "config.json").write_text(config)
    assert run("--output", str(tmp_path)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "measured"),
    [
        ([], [SGD, DIRECT, "PyTorch"]),
        (["--no-definition"], [SGD, "PyTorch"]),
        (["--no-torch"], [SGD, DIRECT]),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_rows_that_can_be_left_out(
    argv, measured, installed, tiny, monkeypatch, tmp_path
):
    measured_on(monkeypatch, **({"torch": "2.6.0"} if installed else {}))
    monkeypatch.setattr(
        parts, "on_kernels", lambda kernels, without=(): {SGD: Program(lambda: None, 1)}
    )
    monkeypatch.setattr(
        torch_programs, "programs", lambda kernels: {"PyTorch": lambda: None}
    )
    assert run(*SMALLEST, *argv, "--output", str(tmp_path)) == 0
    rows = json.loads((tmp_path / "tiny.json").read_text())
    expected = [name for name in measured if installed or name != "PyTorch"]
    assert [row["program"] for row in rows] == expected


def test_a_run_of_training_alone(monkeypatch, tmp_path, capsys, relaxed_jax):
    monkeypatch.setattr(benchmark, "TRAINED", ("cnn",))
    argv = ["--no-losses", "--no-torch", "--step-batch-size", "2", "--repeats", "2"]
    assert run(*argv, "--output", str(tmp_path)) == 0
    rows = json.loads((tmp_path / "training-cnn.json").read_text())
    assert [row["program"] for row in rows] == [
        "training step",
        "all pairs of its kernels",
        "drawing its images",
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
        (["--repeats", "x"], "--repeats: invalid literal for int() with base 10: 'x'"),
    ],
)
def test_bad_options(argv, message, capsys):
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
