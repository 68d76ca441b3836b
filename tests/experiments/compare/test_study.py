"""The study's command, and its page."""

import shutil

import jax
import numpy as np
import pytest

from experiments import command_line
from experiments.fit import engine
from experiments.options import Config as Training
from experiments.study import __main__ as study
from experiments.study import page
from experiments.study.page import write_page
from experiments.study.results import Results
from experiments.study.settings import SETTINGS, Setting
from experiments.study.treatments import TREATMENTS
from tests.experiments.compare.study_outcomes import BASE, final, trial_of

NAN = np.nan
SMALL = Setting(
    "a small setting",
    Training(
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


def run(*argv):
    return command_line.run(study.main, study.Config, argv, prog=study.COMMAND)


@pytest.fixture
def small(monkeypatch):
    """One small setting instead of all."""
    for module in (study, page):
        monkeypatch.setattr(module, "SETTINGS", {"small": SMALL})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study of one small setting, and what the command printed."""
    folder = tmp_path_factory.mktemp("study") / "results"
    with pytest.MonkeyPatch.context() as patch:
        for module in (study, page):
            patch.setattr(module, "SETTINGS", {"small": SMALL})
        quickly = {"xla_backend_optimization_level": "0"}
        patch.setattr(engine, "compiler_options", lambda: quickly)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            study.main(study.Config(settings=("small",), results=folder))
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """Of its results alone, to go on from."""
    shutil.copytree(finished, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def no_training(monkeypatch):
    """Trains nothing; the trials that would have been."""
    asked = []

    class Trainer:
        def __init__(self, *_):
            pass

        def run(self, trial, on_epoch):
            asked.append(trial)
            raise KeyboardInterrupt

    monkeypatch.setattr(study, "Trainer", Trainer)
    return asked


def test_every_trial_is_trained_once_and_kept(finished):
    outcomes = Results(finished / "small").outcomes
    splits = [(trial.treatment, trial.split) for trial in outcomes]
    assert splits == [
        *[("none", "validation")] * 2,
        ("none", "test"),
        *[("zero-mean", "validation")] * 6,
        ("zero-mean", "test"),
    ]
    for trial, outcome in outcomes.items():
        assert len(outcome.scores) == (2 if trial.split == "test" else 1)
        assert len(outcome.epochs) == (4 if trial.split == "test" else 0)
        assert all(0 <= score.accuracy <= 100 for score in outcome.scores)


def test_an_initialization_is_what_training_starts_from(finished):
    outcomes = Results(finished / "small").outcomes
    untouched, changed = (
        [row for row in outcome.layers if row.epoch == 0]
        for trial, outcome in outcomes.items()
        if trial.split == "test"
    )
    for row, other in zip(untouched, changed, strict=True):
        assert row[:3] == other[:3]
        assert other.norm == pytest.approx(row.norm, rel=2e-3)  # four digits are kept
        assert other.scale_free_loss != row.scale_free_loss


def test_the_page_and_its_plots_are_beside_the_results(finished):
    text = (finished.parent / "RESULTS.md").read_text(encoding="utf-8")
    figures = finished.parent / "figures"
    names = {path.name for path in figures.iterdir()}
    # Convergence is drawn of the treatments that the page shows; this is none of them.
    assert names == {f"study-small-{kind}.png" for kind in ("gains", "similarity")}
    for name in names:
        assert f"(figures/{name})" in text
        assert (figures / name).read_bytes().startswith(b"\x89PNG")
    assert "60 training images of digits" in text
    files = {path.name for path in (finished / "small").iterdir()}
    assert files == {"config.json", "trials.csv", "epochs.csv", "layers.csv"}


@pytest.mark.usefixtures("small")
def test_called_again_it_trains_nothing(copy, no_training, capsys):
    before = {path.name: path.read_bytes() for path in (copy / "small").iterdir()}
    assert run("--results", str(copy)) == 0
    assert no_training == []
    assert capsys.readouterr().out == f"page: {copy.parent / 'RESULTS.md'}\n"
    assert before == {path.name: path.read_bytes() for path in (copy / "small").iterdir()}


@pytest.mark.usefixtures("small")
def test_it_goes_on_where_it_was_interrupted(copy, no_training):
    lines = (copy / "small" / "trials.csv").read_text().splitlines(keepends=True)
    (copy / "small" / "trials.csv").write_text("".join(lines[:-2]))
    last = list(Results(copy / "small").outcomes)[-1]
    assert run("--results", str(copy)) == 130
    assert [trial.split for trial in no_training] == ["test"]
    assert no_training[0].treatment == last.treatment == "zero-mean"


@pytest.mark.usefixtures("small")
def test_only_the_treatments_asked_for_are_trained(tmp_path, no_training):
    assert run("--results", str(tmp_path), "--treatments", "zero-mean") == 130
    (trial,) = no_training
    assert trial.treatment == "none"  # which all are compared with


@pytest.mark.usefixtures("small")
def test_no_minutes_train_nothing_and_leave_nothing(tmp_path, no_training, capsys):
    assert run("--results", str(tmp_path / "new"), "--minutes", "0") == 0
    assert no_training == []
    assert capsys.readouterr().out == "nothing was scored on test images yet\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("small")
def test_results_of_other_options_are_refused(copy, no_training, capsys):
    config = copy / "small" / "config.json"
    config.write_text(config.read_text().replace('"epochs": 2', '"epochs": 3'))
    (copy / "small" / "trials.csv").unlink()
    assert run("--results", str(copy)) == 2
    error = capsys.readouterr().err
    assert "--results " in error
    assert "holds results of other options: --epochs is 2, and was 3 in " in error
    assert str(config) in error
    assert no_training == []


@pytest.mark.usefixtures("small")
def test_a_damaged_file_is_one_line(copy, no_training, capsys):
    path = copy / "small" / "layers.csv"
    path.write_text("a,b\n")
    assert run("--results", str(copy)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {path} is damaged: its columns are a, b"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--settings", "plain", "magic"),
            f"--settings is 'magic'; expected {', '.join(SETTINGS)}",
        ),
        (
            ("--treatments", "magic"),
            f"--treatments is 'magic'; expected {', '.join(TREATMENTS)}",
        ),
        (("--minutes", "-1"), "--minutes is -1.0; expected 0 or more"),
        (("--minutes", "nan"), "--minutes is nan; expected 0 or more"),
        (("--minutes", "inf"), "--minutes is inf; expected 0 or more"),
        (("--minutes", "soon"), "--minutes is 'soon'; expected a number"),
    ],
)
def test_bad_options_are_one_line(options, message, tmp_path, no_training, capsys):
    assert run("--results", str(tmp_path / "new"), *options) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert no_training == []
    assert not (tmp_path / "new").exists()


def test_a_cpu_is_given_what_fits_it():
    names = study.fitting()
    assert "resnet18" not in names
    assert len(names) == len(SETTINGS) - 1


# The page, of made-up results.


def keep(folder, setting, **accuracies):
    """Made-up test results; of treatments whose names have _ for -."""
    results = Results(folder / setting)
    (folder / setting).mkdir(parents=True)
    for name, values in accuracies.items():
        gone = [[30.0 if np.isnan(x) else x, x, x, x] for x in values]
        results.add(trial_of(name.replace("_", "-")), final(values, gone))


def sections(text):
    """The page's parts, by heading."""
    return {part.split("\n")[0]: part for part in text.split("\n## ")}


def row(text, name):
    """The cells of the first line of a table that a treatment has."""
    return next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()


def test_a_page_of_nothing_is_not_written(tmp_path):
    assert write_page(tmp_path / "results") is None
    keep(tmp_path / "results", "plain", none=BASE)
    assert write_page(tmp_path / "results") is None
    assert not (tmp_path / "RESULTS.md").exists()


def test_a_page_of_one_setting_says_what_the_rows_say(tmp_path):
    better = [x + gain for x, gain in zip(BASE, (3, 2, 3, 2, 2), strict=True)]
    keep(tmp_path / "results", "plain", none=BASE, paper_init=better)
    parts = sections(write_page(tmp_path / "results").read_text(encoding="utf-8"))
    limits = "What these figures do not say"
    assert list(parts) == [
        "# Does it help?",
        "What to use",
        "The paper's claims",
        "plain",
        "Not measured yet",
        limits,
        "Treatments",
    ]
    missing = {x for x in TREATMENTS if x not in ("none", "paper-init")}
    (line,) = (x for x in parts["Not measured yet"].splitlines() if "- plain: " in x)
    assert set(line.removeprefix("- plain: ").split(", ")) == missing
    assert "- resnet18 (" in parts["Not measured yet"]
    assert "5 seeds" in parts["plain"]
    line = " ".join(row(parts["plain"], "paper-init"))
    # 2.776 standard errors.
    assert line.startswith("paper-init 10, end 0.02 62.90 ± 0.92 +2.40 ± 0.68 better")
    assert " ".join(row(parts["plain"], "none")) == "none 0.02 60.50 ± 1.39"
    assert "| paper-init |" in parts["Treatments"]
    assert parts["Treatments"].count("\n| ") == len(TREATMENTS) + 1  # none is a heading


def test_a_page_of_several_settings_is_in_their_order(tmp_path):
    for setting in ("digits", "batch-norm"):
        keep(tmp_path / "results", setting, none=BASE, shrunk=BASE[::-1])
    parts = sections(write_page(tmp_path / "results").read_text(encoding="utf-8"))
    assert list(parts)[3:5] == ["batch-norm", "digits"]
    assert "- **batch-norm**: " in parts["What to use"]
    assert "- **digits**: " in parts["What to use"]
    assert len(list((tmp_path / "figures").iterdir())) == 6


def test_a_treatment_that_diverged_is_last_and_has_no_numbers(tmp_path):
    keep(
        tmp_path / "results",
        "plain",
        none=BASE,
        paper_reg=[NAN] * 5,
        scale_free_reg=[NAN, *BASE[1:]],
        shrunk=[57.0, 58.5, 56.0, 57.0, 59.0],
    )
    parts = sections(write_page(tmp_path / "results").read_text(encoding="utf-8"))
    table = parts["plain"].split("```")[1]
    last = table.strip().splitlines()[-1]
    assert last.startswith("paper-reg") and "better" not in last and "worse" not in last
    assert "nan" not in parts["What to use"]
    assert "(4 of 5)" in next(x for x in table.splitlines() if "scale-free-reg" in x)
