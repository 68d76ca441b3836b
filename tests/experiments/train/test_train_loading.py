"""The network that a run chose, taken out of its folder."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from experiments.data.images import normalized
from experiments.data.open import open_source
from experiments.fit.build import build_engine, build_feed
from experiments.interventions import intervention
from experiments.options import Config
from experiments.progress import display, tracked
from experiments.train.__main__ import open_folder
from experiments.train.loading import load_run
from experiments.train.run import Run

pytestmark = pytest.mark.usefixtures("quick_compilation", "relaxed_jax")

CONFIG = Config(
    train_size=80,
    validation=0.2,
    width=0.1,
    activation="elu",
    seeds=2,
    epochs=5,
    batch_size=8,
    learning_rate=0.3,
    schedule="constant",
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of a run, and its images."""
    folder, console = tmp_path_factory.mktemp("runs") / "run", Console(quiet=True)
    source = open_source(CONFIG.dataset)
    feed = build_feed(CONFIG, source, tracked(console))
    open_folder(replace(CONFIG, output=folder), source, feed)
    with display(console, CONFIG.epochs, feed.steps) as shown:
        Run(
            CONFIG,
            build_engine(CONFIG, intervention(CONFIG.method), feed, seeds=CONFIG.seeds),
            feed,
            folder,
            shown,
        )()
    return folder, feed


@pytest.mark.parametrize("seed", [0, 1])
def test_its_accuracy_is_that_of_the_results(ended, seed):
    folder, feed = ended
    model, variables = load_run(folder, seed)
    known = json.loads((folder / "config.json").read_text())["images_normalised_by"]
    by = [np.float32(known[name]) for name in ("mean", "deviation")]
    right, total = 0, 0
    for images, labels in feed.score("test"):
        logits = model.apply(variables, normalized(images, *by))
        right += (np.argmax(logits, 1) == labels).sum()
        total += (np.asarray(labels) >= 0).sum()
    results = json.loads((folder / "results.json").read_text())
    assert min(results["chosen_epoch"]) < CONFIG.epochs  # not all are the last network
    assert total == results["images"]
    assert 100 * right / total == pytest.approx(results["accuracy"][seed])


@pytest.mark.parametrize("seed", [-1, 2])
def test_a_seed_that_was_not_trained(ended, seed):
    with pytest.raises(ValueError, match=rf"^seed is {seed}; expected 0 to 1, of "):
        load_run(ended[0], seed)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path} holds no checkpoints; expected "):
        load_run(tmp_path)


def test_a_damaged_checkpoint_is_not_replaced_by_an_earlier_one(ended, tmp_path):
    folder = shutil.copytree(ended[0], tmp_path / "run")
    last = max(folder.glob("checkpoints/*"), key=lambda path: int(path.name))
    next(last.glob("state/d/*")).write_bytes(b"")
    with pytest.raises(ValueError, match=f"^{last} is damaged; "):
        load_run(folder)
