"""Whatever stops a run, the same command goes on and ends as if nothing had happened."""

import random
import signal
import time

from tests.experiments.train.train_process import (
    assert_same_results,
    checkpoints,
    ended,
    start,
)

EPOCHS, STEPS = 6, 12  # closing an epoch counts as one more step
# Running statistics, images that are streamed from disk and augmented, validation.
OPTIONS = [
    *("--model", "cnn", "--image-size", "9", "--augment"),
    *("--epochs", str(EPOCHS), "--workers"),
]


def test_a_run_killed_and_interrupted_ends_as_one_that_was_not(tmp_path):
    folder, whole, delays = tmp_path / "stopped", tmp_path / "whole", random.Random(0)
    ended(start(tmp_path, whole, *OPTIONS, "0"))
    reached = []
    for number, code in (signal.SIGKILL, -9), (signal.SIGINT, 130):
        before = checkpoints(folder)[-1:]
        process = start(tmp_path, folder, *OPTIONS, "1", "--checkpoint-minutes", "0")
        while process.poll() is None and checkpoints(folder)[-1:] <= before:
            time.sleep(0.005)
        time.sleep(delays.uniform(0, 0.05))
        process.send_signal(number)
        said = ended(process, code)
        assert "damaged" not in said
        reached += checkpoints(folder)[-1:]
    assert reached[0] < reached[1] < EPOCHS * (STEPS + 1)
    assert not (folder / "results.json").exists()
    epoch = reached[1] // (STEPS + 1) + 1
    assert said.splitlines()[-1] == (
        f"interrupted: the same command with --output {folder} goes on at epoch {epoch}"
    )
    said = ended(start(tmp_path, folder, *OPTIONS, "0"))
    assert "damaged" not in said
    assert f"going on at epoch {epoch}" in said.splitlines()
    assert_same_results(folder, whole)
