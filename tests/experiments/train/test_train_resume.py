"""Whatever stops a run, the same command goes on and ends as if nothing had happened."""

import random
import signal
import time

import pytest

from tests.experiments.train.train_process import (
    assert_same_results,
    checkpoints,
    ended,
    start,
)

STEPS = 15  # of an epoch; closing it counts as one more
NORMED = "--model", "cnn"  # it keeps running statistics
OFTEN = *NORMED, "--checkpoint-minutes", "0"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def uninterrupted(scratch):
    folder = scratch / "uninterrupted"
    ended(start(scratch, folder, *NORMED))
    return folder


def wait_for(process, condition):
    """Until it holds or the process ends."""
    while process.poll() is None and not condition():
        time.sleep(0.005)


def epoch_of(number):
    """That a run goes on at from the checkpoint of that number."""
    return number // (STEPS + 1) + 1


def test_a_run_killed_and_interrupted_ends_as_one_that_was_not(scratch, uninterrupted):
    folder, delays = scratch / "killed", random.Random(0)
    reached = []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process, before = start(scratch, folder, *OFTEN), checkpoints(folder)[-1:]
        wait_for(process, lambda before=before: checkpoints(folder)[-1:] > before)
        time.sleep(delays.uniform(0, 0.2))
        process.send_signal(number)
        said = ended(process, {signal.SIGKILL: -9, signal.SIGINT: 130}[number])
        assert "damaged" not in said
        if number == signal.SIGINT:
            epoch = epoch_of(checkpoints(folder)[-1])
            assert said.splitlines()[-1] == (
                f"interrupted: the same command with --output {folder} goes on at epoch "
                f"{epoch}"
            )
        reached += checkpoints(folder)[-1:]
    assert reached == sorted(set(reached))
    assert reached[-1] < 12 * (STEPS + 1)
    assert not (folder / "results.json").exists()
    there = checkpoints(folder)
    said = ended(start(scratch, folder, *OFTEN))
    assert "damaged" not in said
    assert f"going on at epoch {epoch_of(there[-1])}" in said.splitlines()
    assert_same_results(folder, uninterrupted)


def test_a_streamed_run_killed_inside_an_epoch_ends_as_one_that_was_not(scratch):
    options = (
        *NORMED,
        *("--image-size", "9", "--augment", "--train-size", "96"),
        *("--epochs", "2", "--validation", "0", "--workers"),
    )
    folder, whole = scratch / "streamed", scratch / "streamed-at-once"
    ended(start(scratch, whole, *options, "0"))
    process = start(scratch, folder, *options, "1", "--checkpoint-minutes", "0")
    wait_for(process, lambda: checkpoints(folder)[-1:] >= [3])
    process.kill()
    ended(process, -9)
    assert checkpoints(folder)[-1] < 96 // 8
    said = ended(start(scratch, folder, *options, "0"))
    assert "going on at epoch 1" in said.splitlines()
    assert_same_results(folder, whole)
