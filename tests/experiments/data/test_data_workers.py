"""Worker processes, and what happens when they or their parent end early."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from experiments.data.open import open_source
from experiments.data.stream import train_stream
from experiments.data.workers import in_workers
from tests.experiments.data.data_cases import encoded, examples, write_folder

OPTIONS = {"batch_size": 3, "image_size": 150, "seed": 3, "epoch": 1}

# A script that streams from a folder with workers, and ends as a command does.
SCRIPT = """
import sys, os, time
from dataclasses import dataclass
from multiprocessing import active_children
from experiments import command_line
from experiments.data.open import open_source
from experiments.data.stream import train_stream

@dataclass
class Config:
    folder: str = ""
    wait: bool = False

def main(config):
    source = open_source(config.folder)
    stream = train_stream(source, range(source.sizes["train"]), batch_size=2,
                          image_size=300, seed=0, epoch=0, workers=2)
    for batch in stream:
        if config.wait:
            print(*(child.pid for child in active_children()), flush=True)
            time.sleep(100)

if __name__ == "__main__":
    command_line.leave(command_line.run(main, Config, prog="script"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    files = {f"train/{i % 2}/{i}.png": x for i, x in enumerate(examples(20)[0])}
    files["test/0/0.png"] = examples(1)[0][0]
    return write_folder(tmp_path_factory.mktemp("images"), files)


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, file, *map(str, arguments)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def state(_):
    """Of the process that this runs in."""
    handlers = {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ignored = handlers == {signal.SIG_IGN}
    return np.array([os.getpid(), ignored, jax.config.jax_platforms == "cpu"])


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_batches_are_the_same_for_any_number_of_workers(folder):
    source = open_source(str(folder))
    whole = list(train_stream(source, range(20), **OPTIONS))
    later = list(train_stream(source, range(20), start_step=2, workers=2, **OPTIONS))
    assert len(whole) == 6
    for one, other in zip(whole[2:], later, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_workers_leave_accelerators_and_interruptions_to_their_parent(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    (found,) = in_workers(grain.MapDataset.range(1).map(state), 1)
    pid, ignored, on_cpu = found
    assert pid != os.getpid() and ignored and on_cpu
    assert os.environ["PYTHONWARNINGS"] == "default"


def test_a_worker_that_dies_is_an_error():
    elements = in_workers(grain.MapDataset.range(3).map(die), 1)
    message = r"a process that reads images died; with fewer --workers .* code -9\)"
    with pytest.raises(OSError, match=message):
        next(elements)


def test_images_that_cannot_be_copied_need_no_workers():
    lock = threading.Lock()
    elements = in_workers(grain.MapDataset.range(3).map(lambda i: lock and i), 1)
    with pytest.raises(ValueError, match=r"^--workers expects 0 .* cannot pickle"):
        next(elements)


def test_an_image_that_cannot_be_read_is_one_line(script, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    files = {f"train/{i % 2}/{i}.jpg": image for i in range(6)}
    files |= {f"test/{i}/0.jpg": image for i in range(2)}
    content = encoded(image, "JPEG")
    files["train/0/4.jpg"] = content[: len(content) // 2]
    folder = write_folder(tmp_path / "broken", files)
    process = script("--folder", folder)
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"error: {folder}/train/0/4.jpg cannot be read: ")


def test_workers_end_when_their_parent_is_killed(script, folder):
    process = script("--folder", folder, "--wait")
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2 and all(map(alive, workers))
    process.kill()
    deadline = time.monotonic() + 60
    while left := list(filter(alive, workers)):
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail("they did not")
        time.sleep(0.05)
    process.communicate(timeout=100)


def alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # which nobody waited for
