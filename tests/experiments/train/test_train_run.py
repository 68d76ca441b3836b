"""A run: what it leaves behind, and what it says of a folder that cannot be written."""

import json
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.data.images import normalized
from experiments.data.open import open_source
from experiments.fit.build import build_engine, build_feed
from experiments.fit.engine import Engine
from experiments.interventions import intervention
from experiments.options import Config
from experiments.progress import display, tracked
from experiments.report import write_report
from experiments.train.__main__ import open_folder
from experiments.train.loading import load_run
from experiments.train.run import Run

pytestmark = pytest.mark.usefixtures("relaxed_jax")

CONFIG = Config(
    train_size=48,
    validation=0.3,
    model="cnn",
    widths=(3, 5, 4),
    activation="elu",
    seeds=2,
    epochs=4,
    batch_size=8,
    learning_rate=0.3,
    schedule="constant",
)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def parts():
    """The engine compiles its programs once for all tests."""
    source = open_source(CONFIG.dataset)
    feed = build_feed(CONFIG, source, tracked(QUIET))
    engine = build_engine(CONFIG, intervention(CONFIG.method), feed, seeds=CONFIG.seeds)
    return engine, feed, source


def run(parts, folder, epochs=1):
    """What the command does with a run folder."""
    engine, feed, source = parts
    config = replace(CONFIG, epochs=epochs, output=folder)
    open_folder(config, source, feed)
    with display(QUIET, epochs, feed.steps) as shown:
        outcome = Run(config, engine, feed, folder, shown)()
    write_report(folder)
    return outcome


@pytest.fixture(scope="module")
def finished(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(parts, folder, CONFIG.epochs)
    return folder


def test_a_run_leaves_these_files(finished):
    assert {path.name for path in finished.iterdir()} == {
        *("config.json", "history.json", "results.json", "checkpoints.json"),
        *("kernels.npz", "tensorboard", "checkpoints", "report.html"),
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_the_network_in_the_folder_has_the_accuracy_of_the_results(parts, finished, seed):
    model, variables = load_run(finished, seed)
    known = json.loads((finished / "config.json").read_text())["images_normalised_by"]
    by = [np.float32(known[name]) for name in ("mean", "deviation")]
    right, total = 0, 0
    for images, labels in parts[1].score("test"):
        logits = model.apply(variables, normalized(images, *by))
        right += (np.argmax(logits, 1) == labels).sum()
        total += (np.asarray(labels) >= 0).sum()
    results = json.loads((finished / "results.json").read_text())
    assert min(results["chosen_epoch"]) < CONFIG.epochs  # not all are the last network
    assert total == results["images"]
    assert 100 * right / total == pytest.approx(results["accuracy"][seed])


def test_networks_that_are_not_in_the_folder(finished, tmp_path):
    for seed in (-1, 2):
        with pytest.raises(ValueError, match=rf"^seed is {seed}; expected 0 to 1, of "):
            load_run(finished, seed)
    with pytest.raises(ValueError, match=f"^{tmp_path} holds no checkpoints; expected "):
        load_run(tmp_path)
    folder = shutil.copytree(finished, tmp_path / "run")
    last = max(folder.glob("checkpoints/*"), key=lambda path: int(path.name))
    next(last.glob("state/d/*")).write_bytes(b"")
    with pytest.raises(ValueError, match=f"^{last} is damaged; "):
        load_run(folder)  # and not of the one before


@pytest.mark.parametrize(
    "name", ["kernels.npz", "tensorboard", "history.json", "results.json", "report.html"]
)
def test_a_file_that_cannot_be_written_is_named_with_its_folder(parts, tmp_path, name):
    folder = tmp_path / "run"
    open_folder(replace(CONFIG, epochs=1, output=folder), parts[2], parts[1])
    if name == "tensorboard":  # which is a folder
        (folder / name).touch()
    else:
        (folder / name).mkdir()
    called = "the run folder" if name == "report.html" else "--output"
    with pytest.raises(OSError, match="which cannot be written") as raised:
        run(parts, folder)
    message = str(raised.value)
    assert message.startswith(f"{called} is {folder}, which cannot be written: ")
    assert f": {folder / name}" in message


def test_a_seed_that_diverged_has_no_accuracy(parts, tmp_path, monkeypatch):
    close, (_, feed, _) = Engine.close_epoch, parts
    score, asked = feed.score, []

    def diverging(engine, network, *others):
        spoilt = network._replace(loss=network.loss * jnp.array([1, jnp.nan]))
        return close(engine, spoilt, *others)

    monkeypatch.setattr(Engine, "close_epoch", diverging)
    monkeypatch.setattr(feed, "score", lambda split: asked.append(split) or score(split))
    outcome = run(parts, tmp_path / "run")
    assert asked == ["validation", "validation", "test"]
    assert outcome.diverged_at.tolist() == [0, 1]
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [accuracy is None for accuracy in written["accuracy"]] == [False, True]
