"""The classification experiment from its command line: results, resuming, bad input."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from experiments import command_line
from experiments.classify import __main__ as classify
from experiments.classify.config import Config
from experiments.data.images import Dataset, Images
from experiments.fit.feeds import Resident
from experiments.methods import METHODS
from tests.experiments.compare.classify_results import kernels, result

SMALLEST = {
    "model": "cnn-plain",
    "methods": ("none", "control", "scale-free-reg"),
    "seeds": 2,
    "epochs": 2,
    "steps": 2,
    "train-size": 60,
    "batch-size": 24,
    "width": 1 / 16,
}


def arguments(**options):
    """The command line of the smallest run, with other options."""
    for name, value in (SMALLEST | options).items():
        yield f"--{name}"
        yield from map(str, value if isinstance(value, tuple) else (value,))


def run(*argv, **about):
    about |= {"prog": classify.COMMAND}
    return command_line.run(classify.main, Config, argv, **about)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run folder and output of the smallest run, through a shell."""
    folder = tmp_path_factory.mktemp("runs") / "smallest"
    command = [sys.executable, "-m", "experiments.classify", "--output", str(folder)]
    quickly = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # to compile
    process = subprocess.run(
        [*command, *arguments()], capture_output=True, text=True, env=quickly
    )
    assert process.returncode == 0, process.stderr
    return folder, process


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the run folder to change."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def no_training(monkeypatch):
    """Makes results up; the names of methods that would have been trained."""
    trained = []

    def train(name, config, trainer, folder, on_epoch):
        trained.append(name)
        folder.add(name, result([[1.0, 2.0], [3.0, 4.0]]), kernels())

    monkeypatch.setattr(classify, "train", train)
    return trained


def test_the_table_is_printed_and_kept(finished):
    folder, process = finished
    text = (folder / "table.txt").read_text(encoding="utf-8")
    assert process.stdout.startswith(text)
    assert process.stdout.splitlines()[-1].endswith(f"results and plots: {folder}")
    lines = text.splitlines()
    assert lines[0].startswith("digits: 60 training and 899 test images of 8x8x1")
    assert [line.split()[0] for line in lines[-3:]] == list(SMALLEST["methods"])
    assert "Traceback" not in process.stderr and "Warning" not in process.stderr


def test_the_folder_holds_options_results_curves_and_plots(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["methods"] == list(SMALLEST["methods"])
    assert config["options"]["train_size"] == 60
    assert {"python", "jax", "flax", "optax", "convsim_jax"} <= config["versions"].keys()
    results = json.loads((folder / "results.json").read_text())
    assert list(results) == list(SMALLEST["methods"])
    assert results["scale-free-reg"]["strength"] == METHODS["scale-free-reg"].strength
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    with (folder / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 12
    last = [float(row["accuracy"]) for row in curves if row["epoch"] == "2"]
    assert last == [float(row["accuracy"]) for row in rows]
    for name in ("accuracy", "layers", "similarity_matrix"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob(".*"))


def test_methods_start_from_the_same_weights(finished):
    folder, _ = finished
    none, control, regularized = (
        dict(np.load(folder / f"kernels/{name}.npz").items())
        for name in SMALLEST["methods"]
    )
    layers = [path for path in none if path.startswith("start/")]
    assert len(layers) == 3
    for path in layers:
        np.testing.assert_array_equal(none[path], regularized[path])
        ratio = control[path] / none[path]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
        assert 0 < ratio.mean() < 1


def test_a_finished_run_is_not_run_again(copy, no_training, capsys, relaxed_jax):
    before = (copy / "results.json").read_bytes()
    assert run("--output", str(copy), *arguments()) == 0
    assert no_training == []
    assert (copy / "results.json").read_bytes() == before
    assert (copy / "table.txt").read_text(encoding="utf-8") in capsys.readouterr().out


def test_an_interrupted_run_goes_on_with_what_is_missing(copy, no_training, relaxed_jax):
    results = json.loads((copy / "results.json").read_text())
    del results["control"]
    (copy / "results.json").write_text(json.dumps(results))
    assert run("--output", str(copy), *arguments()) == 0
    assert no_training == ["control"]
    again = json.loads((copy / "results.json").read_text())
    assert again["none"] == results["none"]
    assert again["control"]["accuracy"] == [[1.0, 2.0], [3.0, 4.0]]


def test_the_default_folder_is_named_by_what_is_run_and_when(
    no_training, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments()) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-cnn-plain-\d{8}-\d{6}", folder.name)
    assert capsys.readouterr().out.endswith(f"results and plots: runs/{folder.name}\n")


def test_an_interruption_says_how_to_go_on(copy, monkeypatch, capsys):
    def interrupt(name, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "train", interrupt)
    (copy / "results.json").write_text("{}")
    assert run("--output", str(copy), *arguments()) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"interrupted: the same command with --output {copy} goes on at none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet"}, "--model is 'resnet'; expected cnn, cnn-plain"),
        (
            {"methods": ("none", "magic")},
            f"--methods is 'magic'; expected {', '.join(METHODS)}",
        ),
        (
            {"methods": ("none", "none")},
            "--methods is 'none none'; expected names, each once",
        ),
        ({"methods": ()}, "--methods is ''; expected names, each once"),
        ({"strength": -0.5}, "--strength is -0.5; expected 0 or more"),
        ({"strength": "nan"}, "--strength is nan; expected 0 or more"),
        ({"steps": -1}, "--steps is -1; expected 0 or more"),
        ({"seeds": 0}, "--seeds is 0; expected 1 or more"),
        ({"epochs": -3}, "--epochs is -3; expected 1 or more"),
        ({"batch-size": 0}, "--batch-size is 0; expected 1 or more"),
        ({"batch-size": 61}, "--batch-size is 61; expected at most 60, the number of"),
        ({"width": 0}, "--width is 0.0; expected more than 0"),
        ({"learning-rate": 0}, "--learning-rate is 0.0; expected more than 0"),
        ({"momentum": 1}, "--momentum is 1.0; expected 0 to less than 1"),
        (
            {"train-size": 5},
            "--train-size is 5; expected 10 (the classes",
        ),
        ({"train-size": 5000}, "--train-size is 5000; expected 10 (the"),
        (
            {"dataset": "digit"},
            "--dataset is 'digit'; expected digits",
        ),
        ({"dataset": "mnist"}, "dataset 'mnist' is not prepared: looked for"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    options, message, tmp_path, capsys, no_training, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert run("--output", str(tmp_path / "run"), *arguments(**options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()
    assert no_training == []


def test_images_smaller_than_the_network_can_pool():
    images = Images(np.zeros((8, 7, 9, 1), np.uint8), np.zeros(8, np.int32))
    moments = np.zeros(1, np.float32), np.ones(1, np.float32)
    feed = Resident(Dataset(images, images, images, 3, *moments), 8)
    message = "--dataset digits has images of 7x9; expected at least 8x8 for cnn"
    with pytest.raises(ValueError, match=message):
        classify.make_trainer(Config(), feed)


def test_an_output_folder_of_other_options(copy, no_training, capsys):
    before = (copy / "results.json").read_bytes()
    assert run("--output", str(copy), *arguments(epochs=3)) == 2
    assert capsys.readouterr().err.startswith(
        "error: --output holds results of other options: --epochs is 3, and was 2 in"
    )
    assert (copy / "results.json").read_bytes() == before


def test_an_output_folder_that_cannot_be_written(tmp_path, no_training, capsys):
    (tmp_path / "file").touch()
    assert run("--output", str(tmp_path / "file" / "run"), *arguments()) == 2
    assert "which cannot be written" in capsys.readouterr().err
    assert no_training == []


def test_diverged_training_is_in_the_table_and_null_in_the_results(
    tmp_path, capsys, relaxed_jax
):
    options = {"methods": ("none",), "learning-rate": 1e30, "seeds": 1}
    assert run("--output", str(tmp_path / "run"), *arguments(**options)) == 0
    assert "none: 1 of 1 seeds diverged at epoch 1" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["none"]["accuracy"] == [[None, None]]
    assert results["none"]["diverged_at"] == [1]


def test_help_names_every_option_and_method(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help", description=classify.DESCRIPTION)
    text = capsys.readouterr().out
    for name in (field.name for field in fields(Config)):
        assert f"--{name.replace('_', '-')} " in text
    for name, method in METHODS.items():
        assert f"\n* {name}: {method.summary}\n" in text
    assert "None" not in text
