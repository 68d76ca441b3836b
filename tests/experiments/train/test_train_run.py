"""A run whose folder cannot be written says so, whichever file it is."""

import json
import re
import resource

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.data.open import open_source
from experiments.fit.build import build_engine, build_feed
from experiments.fit.engine import Engine
from experiments.interventions import intervention
from experiments.options import Config
from experiments.progress import display, tracked
from experiments.report import write_report
from experiments.run_folder import claim, plain
from experiments.train.run import Run
from tests.experiments.train.train_process import ended, start

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = Config(
    train_size=16,
    validation=0.01,
    model="cnn-plain",
    width=0.1,
    epochs=1,
    batch_size=8,
    schedule="constant",
)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def parts():
    """The engine compiles its programs once for all tests."""
    feed = build_feed(CONFIG, open_source(CONFIG.dataset), tracked(QUIET))
    return build_engine(
        CONFIG, intervention(CONFIG.method), feed, seeds=CONFIG.seeds
    ), feed


def run(parts, folder):
    """What the command does with a run folder."""
    claim(folder, plain(CONFIG.options()), {})
    with display(QUIET, CONFIG.epochs, parts[1].steps) as shown:
        outcome = Run(CONFIG, *parts, folder, shown)()
    write_report(folder)
    return outcome


def test_a_run_leaves_these_files(parts, tmp_path):
    run(parts, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.json",
        "kernels.npz",
        "tensorboard",
        "history.json",
        "checkpoints",
        "checkpoints.json",
        "results.json",
        "report.html",
    }


@pytest.mark.parametrize(
    "name",
    ["kernels.npz", "tensorboard", "history.json", "results.json", "report.html"],
)
def test_a_file_that_cannot_be_written_is_named_with_its_folder(parts, tmp_path, name):
    claim(tmp_path, plain(CONFIG.options()), {})
    if name == "tensorboard":  # which is a folder
        (tmp_path / name).touch()
    else:
        (tmp_path / name).mkdir()
    called = "the run folder" if name == "report.html" else "--output"
    with pytest.raises(OSError, match="which cannot be written") as raised:
        run(parts, tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{called} is {tmp_path}, which cannot be written: ")
    assert f": {tmp_path / name}" in message


def test_test_images_are_scored_once_at_the_end(parts, tmp_path, monkeypatch):
    _, feed = parts
    score, asked = feed.score, []
    monkeypatch.setattr(feed, "score", lambda split: asked.append(split) or score(split))
    run(parts, tmp_path / "run")
    assert asked == ["validation", "validation", "test"]


def test_a_seed_that_diverged_has_no_accuracy(parts, tmp_path, monkeypatch):
    close = Engine.close_epoch

    def diverging(engine, network, *others):
        return close(engine, network._replace(loss=network.loss * jnp.nan), *others)

    assert np.isfinite(run(parts, tmp_path / "finite").accuracy).all()
    monkeypatch.setattr(Engine, "close_epoch", diverging)
    outcome = run(parts, tmp_path / "run")
    assert outcome.diverged_at.tolist() == [1]
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["accuracy"] == [None]


def test_a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room(parts, tmp_path):
    folder = tmp_path / "run"
    message = f"--output is {folder}, which cannot be written: File too large"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Of a run this small, some files of a checkpoint are larger, and no others.
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
            run(parts, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "history.json").exists()
    assert not (folder / "results.json").exists()
    # In a process of its own: threads of this one may still be writing the checkpoint.
    options = "--train-size 16 --validation 0.01 --epochs 1 --seeds 1 --schedule constant"
    ended(start(tmp_path, folder, *options.split()))
    assert (folder / "results.json").exists()
