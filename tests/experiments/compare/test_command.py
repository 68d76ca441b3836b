"""The command: fixed strengths in a run folder, tuned ones among the results."""

import csv
import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import command_line
from experiments.compare import __main__ as command
from experiments.compare import config, page
from experiments.compare.config import Config
from experiments.compare.results import Outcome, Results
from experiments.compare.settings import DEMO, SETTINGS, Setting
from experiments.interventions import INTERVENTIONS
from experiments.options import Config as Training
from tests.experiments.compare.outcomes import BASE, NAN, final, outcomes_of
from tests.experiments.data.data_cases import as_records, examples, prepare

METHODS = ("none", "control", "decay")
SMALLEST = {
    "model": "cnn-plain",
    "methods": METHODS,
    "seeds": 2,
    "epochs": 2,
    "steps": 2,
    "train-size": 60,
    "batch-size": 24,
    "width": 1 / 16,
}
SMALL = Setting(
    "a small setting",
    Training(
        config="",
        dataset="digits",
        train_size=60,
        model="cnn-plain",
        width=0.05,
        epochs=2,
        batch_size=24,
    ),
    (0.01, 0.1),
    ("none", "zero-mean"),
    tuned=1,
    seeds=2,
)


def arguments(**options):
    """The command line of the smallest run, with other options."""
    for name, value in (SMALLEST | options).items():
        yield f"--{name}"
        yield from map(str, value if isinstance(value, tuple) else (value,))


def run(*argv):
    about = {"prog": command.COMMAND, "description": command.DESCRIPTION}
    return command_line.run(command.main, Config, argv, **about)


@pytest.fixture(scope="module")
def small():
    """There is one small setting more."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (command, config):
            patch.setattr(module, "SETTINGS", {"small": SMALL, **SETTINGS})
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield


@pytest.fixture(scope="module")
def fixed(tmp_path_factory, small):
    """The run folder of the smallest comparison of fixed strengths."""
    folder = tmp_path_factory.mktemp("runs") / "smallest"
    assert run("--output", str(folder), *arguments()) == 0
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, small):
    """The folder of results of one small setting."""
    folder = tmp_path_factory.mktemp("tuned") / "results"
    assert run("--settings", "small", "--results", str(folder)) == 0
    return folder


@pytest.fixture
def copy(fixed, tmp_path):
    """A copy of the run folder to change."""
    shutil.copytree(fixed, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def no_training(monkeypatch, small):
    """Makes outcomes up; the trials that would have been trained."""
    asked = []

    def train(self, trial, seeds, on_epoch):
        asked.append(trial)
        on_epoch(1, np.array([2.0, 4.0]))
        made_up = final([2.0, 4.0], [[1.0, 2.0], [3.0, 4.0]], kernels=True)
        for field in Outcome._fields[:3]:
            rows = [x for x in getattr(made_up, field) if x.seed < len(seeds)]
            rows = [x._replace(seed=seeds.start + x.seed) for x in rows]
            getattr(made_up, field)[:] = rows
        return made_up

    monkeypatch.setattr(command.Trainer, "run", train)
    return asked


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_options_table_results_curves_and_plots(fixed):
    noted = json.loads((fixed / "config.json").read_text())
    names = ["none", "shrunk", "decay"]  # those that they have now
    assert noted["options"]["methods"] == names
    assert noted["options"]["train_size"] == 60
    assert {"python", "jax", "flax", "optax", "convsim_jax"} <= noted["versions"].keys()
    text = (fixed / "table.txt").read_text(encoding="utf-8")
    assert text.startswith("digits: 60 training and 899 test images of 8x8x1")
    assert [line.split()[0] for line in text.splitlines()[-3:]] == names
    assert "effective" in text and "kernel\n" not in text
    assert "two seeds are shown" in text and "Calibration" not in text  # has no column
    rows, curves = rows_of(fixed / "results.csv"), rows_of(fixed / "curves.csv")
    assert (len(rows), len(curves)) == (6, 12)
    last = [float(row["accuracy"]) for row in curves if row["epoch"] == "2"]
    assert last == [float(row["accuracy"]) for row in rows]
    assert {row["strength"] for row in rows[4:]} == {"0.1"}
    for name in ("accuracy", "gains", "layers", "kernels", "maps"):
        assert (fixed / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(fixed.rglob(".*"))


def test_methods_start_from_the_same_weights(fixed):
    results = Results(fixed)
    none, shrunk, regularized = (
        results.kernels(name) for name in ("none", "shrunk", "decay")
    )
    layers = [x for x in none if x.startswith("start/") and x.endswith("kernel")]
    assert len(layers) == 3
    for path in layers:
        np.testing.assert_array_equal(none[path], regularized[path])
        ratio = shrunk[path] / none[path]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
        assert 0 < ratio.mean() < 1


def test_what_is_finished_is_not_run_again(
    copy, tuned, no_training, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "100")  # as wide as what is written
    before = {path: path.read_bytes() for path in copy.glob("*.csv")}
    assert run("--output", str(copy), *arguments()) == 0
    assert before == {path: path.read_bytes() for path in copy.glob("*.csv")}
    assert (copy / "table.txt").read_text(encoding="utf-8") in capsys.readouterr().out
    results = tmp_path / "results"
    shutil.copytree(tuned, results)
    before = {path: path.read_bytes() for path in results.rglob("*.csv")}
    assert run("--settings", "small", "--results", str(results)) == 0
    assert before == {path: path.read_bytes() for path in results.rglob("*.csv")}
    assert capsys.readouterr().out == f"results: {results / 'README.md'}\n"
    assert no_training == []


def test_an_interrupted_one_goes_on_with_what_is_missing(copy, no_training, capsys):
    lines = (copy / "trials.csv").read_text().splitlines(keepends=True)
    (copy / "trials.csv").write_text("".join(x for x in lines if "shrunk" not in x))
    assert run("--output", str(copy), *arguments()) == 0
    assert [trial.method for trial in no_training] == ["shrunk"]
    accuracies = {row["method"]: row["accuracy"] for row in rows_of(copy / "results.csv")}
    assert accuracies["shrunk"] == "4.0"


def test_a_folder_of_an_earlier_version_has_no_picture_of_maps(copy, no_training):
    for path in (copy / "kernels").iterdir():
        with np.load(path) as arrays:
            kept = {x: y for x, y in arrays.items() if not x.endswith("correlation")}
        np.savez(path, **kept)
    (copy / "maps.png").unlink()
    assert run("--output", str(copy), *arguments()) == 0
    assert not (copy / "maps.png").exists() and (copy / "kernels.png").exists()


def test_an_interruption_says_how_to_go_on(copy, monkeypatch, capsys, small):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.Trainer, "run", interrupt)
    (copy / "trials.csv").unlink()
    assert run("--output", str(copy), *arguments()) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"interrupted: the same command with --output {copy} goes on")


def test_the_default_folder_is_named_by_what_is_run_and_when(
    no_training, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments()) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-cnn-plain-\d{8}-\d{6}", folder.name)
    out, err = capsys.readouterr()
    assert out.endswith(f"results and plots: runs/{folder.name}\n")
    assert "none, learning rate 0.05: test 2.00 4.00 %\n" in err
    assert "decay, strength 0.1, learning rate 0.05: test 2.00 4.00 %\n" in err


def test_where_all_diverge_there_is_a_table_and_an_error(
    tmp_path, capsys, no_training, monkeypatch
):
    gone = final([NAN], [[NAN, NAN]], kernels=True)
    monkeypatch.setattr(command.Trainer, "run", lambda *_: gone)
    options = {"methods": ("none",), "learning-rate": 1e30, "seeds": 1, "steps": 100}
    assert run("--output", str(tmp_path / "run"), *arguments(**options)) == 2
    said = capsys.readouterr()
    assert "none: 1 of 1 seeds diverged at epoch 3" in said.out
    assert "error: --learning-rate is 1e+30, at which all seeds" in said.err
    (row,) = rows_of(tmp_path / "run" / "results.csv")
    assert (row["accuracy"], row["diverged_at"]) == ("", "3")
    assert (tmp_path / "run" / "gains.png").exists()


WRONG = [
    ({"model": "resnet"}, "--model"),
    ({"methods": ("none", "muan")}, "--methods is 'muan'; expected names that --help"),
    ({"methods": ("shrunk", "control")}, "--methods is 'shrunk shrunk'"),
    ({"methods": ()}, "--methods is without a value"),
    ({"settings": ()}, "--settings is without a value"),
    ({"settings": ("smell",)}, "--help lists, such as small"),
    ({"settings": ("small",)}, "--model is cnn-plain; expected none with --settings"),
    ({"minutes": 3}, "--minutes is 3.0; expected it with --settings"),
    ({"results": "there"}, "--results is there; expected it with --settings"),
    ({"strength": 1, "methods": ("none",), "steps": 100}, "--strength is 1.0"),
    ({"steps": 7, "methods": ("none",)}, "--steps is 7; expected 100"),
    ({"batch-size": 61}, "--batch-size is 61; expected at most 60"),
    ({"learning-rate": 0}, "--learning-rate is 0.0; expected more than 0"),
    ({"train-size": 5}, "--train-size is 5; expected 10"),
    ({"workers": 2}, "--workers"),
    ({"dataset": "mnist"}, "dataset 'mnist' is not prepared: "),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_bad_options_are_one_line_and_leave_nothing(
    options, message, tmp_path, capsys, no_training, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert run("--output", str(tmp_path / "run"), *arguments(**options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "run").exists()
    assert no_training == []


def test_options_of_one_kind_of_comparison_are_those_of_the_other_by_default():
    replace(Config(), settings=("batch-norm",), minutes=0.0).check()
    Config().check()
    assert Config().chosen == DEMO
    assert set(replace(Config(), settings=("batch-norm",)).chosen) == set(INTERVENTIONS)


def test_a_folder_of_other_images_is_refused(copy, no_training, capsys):
    noted = json.loads((copy / "config.json").read_text())
    assert noted["settled"]["dataset"]["sizes"] == {"train": 898, "test": 899}
    noted["settled"]["dataset"]["sizes"]["train"] -= 1
    (copy / "config.json").write_text(json.dumps(noted))
    assert run("--output", str(copy), *arguments()) == 2
    assert "dataset" in capsys.readouterr().err
    assert no_training == []


def test_a_folder_of_other_options_is_refused(copy, tuned, no_training, capsys):
    assert run("--output", str(copy), *arguments(epochs=3)) == 2
    assert "--epochs is 3, and was 2 in" in capsys.readouterr().err
    shutil.copytree(tuned, copy / "results")
    options = copy / "results" / "small" / "config.json"
    options.write_text(options.read_text().replace('"epochs": 2', '"epochs": 9'))
    (copy / "results" / "small" / "trials.csv").unlink()
    assert run("--settings", "small", "--results", str(copy / "results")) == 2
    assert "--epochs is 2, and was 9 in" in capsys.readouterr().err
    assert no_training == []


def test_an_output_folder_that_cannot_be_written(tmp_path, no_training, capsys):
    (tmp_path / "file").touch()
    assert run("--output", str(tmp_path / "file" / "run"), *arguments()) == 2
    assert "which cannot be written" in capsys.readouterr().err
    assert no_training == []


def test_help_names_methods_and_settings(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    text = " ".join(capsys.readouterr().out.split())
    for name, method in INTERVENTIONS.items():
        assert f" * {name}: {method.summary} " in text
    for name in SETTINGS:
        assert f" * {name}: " in text
    assert "--checkpoint-minutes" not in text


def test_every_trial_is_trained_once_and_kept(tuned):
    outcomes = Results(tuned / "small").outcomes
    splits = [(trial.method, trial.split) for trial in outcomes]
    assert splits == [
        *[("none", "validation")] * 2,
        *[("zero-mean", "validation")] * 6,
        ("none", "test"),
        ("zero-mean", "test"),
    ]
    for trial, outcome in outcomes.items():
        assert len(outcome.scores) == (2 if trial.split == "test" else 1)
        assert len(outcome.epochs) == (4 if trial.split == "test" else 0)
        assert all(0 <= score.accuracy <= 100 for score in outcome.scores)


def test_the_page_and_its_plots_are_among_the_results(tuned):
    text = (tuned / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (tuned / "small").iterdir()}
    figures = {"accuracy.png", "gains.png", "layers.png"}
    rows = {"config.json", "trials.csv", "epochs.csv", "layers.csv"}
    assert files == rows | figures
    assert all(f"(small/{name})" in text for name in figures)
    assert "60 training images of digits" in text
    for name, one in INTERVENTIONS.items():
        assert f"| {name} | {one.role} | {one.summary} |" in text


def test_no_minutes_train_nothing_and_some_methods_alone(no_training, tmp_path, capsys):
    where = ("--settings", "small", "--results", str(tmp_path / "results"))
    assert run(*where, "--minutes", "0") == 0
    assert no_training == []
    assert "nothing is scored" in capsys.readouterr().out
    assert run(*where, "--methods", "none") == 0
    assert {trial.method for trial in no_training} == {"none"}


def test_a_setting_can_be_tried_out_with_results_of_their_own(
    no_training, tmp_path, capsys
):
    smaller = ("--settings", "small", "--methods", "none", "--train-size", "40")
    assert run(*smaller) == 2
    assert "--train-size is 40; expected --results with it" in capsys.readouterr().err
    assert run(*smaller, "--results", str(tmp_path)) == 0
    noted = json.loads((tmp_path / "small" / "config.json").read_text())["options"]
    assert (noted["train_size"], noted["epochs"], noted["batch_size"]) == (40, 2, 24)
    assert no_training


def test_cifar100_is_the_protocol_of_cifar10_on_images_that_are_prepared(
    no_training, tmp_path, capsys
):
    results, prepared = tmp_path / "results", tmp_path / "prepared"
    records = as_records(*examples(30))
    prepare(prepared, {"train": records, "test": records}, name="cifar100")
    where = ("--settings", "cifar100", "--methods", "decay", "--results", str(results))
    assert run(*where, "--data-dir", str(tmp_path)) == 2
    assert "'cifar100' is not prepared" in capsys.readouterr().err
    assert run(*where, "--data-dir", str(prepared)) == 0
    noted = json.loads((results / "cifar100" / "config.json").read_text())
    assert noted["settled"]["dataset"]["sizes"] == {"train": 30, "test": 30}
    like, ours = (replace(SETTINGS[x], summary="") for x in ("cifar10", "cifar100"))
    config = replace(like.config, dataset="cifar100")
    assert ours == replace(like, config=config, usual=False)
    assert no_training


def test_settings_are_in_their_order_and_what_diverged_is_last(tmp_path):
    for setting in ("digits", "plain"):
        results = Results(tmp_path / setting)
        results.folder.mkdir()
        named = {"none": BASE, "shrunk": BASE[::-1], "paper_reg": [NAN] * 5}
        for trial, outcome in outcomes_of(**named).items():
            results.add(trial, outcome)
    text = page.write_page(tmp_path, SETTINGS).read_text(encoding="utf-8")
    titles = re.findall(r"(?m)^## (.*)$", text)
    assert titles == ["plain", "digits", "Methods"]
    table = text.split("## plain")[1].split("```")[1]
    assert table.strip().splitlines()[-1] == "paper-reg: 5 of 5 seeds diverged at epoch 3"
    assert "nan" not in table
    assert "Not measured yet: paper-init" in text
    assert page.write_page(tmp_path / "nothing", SETTINGS) is None
