"""Worker processes, and what happens when they or their parent end early."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from experiments.data.open import open_source
from experiments.data.stream import train_stream
from experiments.data.workers import in_workers
from tests.experiments.data.data_cases import encoded, examples, write_folder

# A script that streams from a folder with a worker, and ends as a command does.
SCRIPT = """
import time
from dataclasses import dataclass
from multiprocessing import active_children
from experiments import command_line
from experiments.data.open import open_source
from experiments.data.stream import train_stream

@dataclass
class Config:
    folder: str = ""

def main(config):
    source = open_source(config.folder)
    stream = train_stream(source, range(source.sizes["train"]), batch_size=2,
                          image_size=200, seed=0, epoch=0, workers=1)
    for batch in stream:
        print(*(child.pid for child in active_children()), flush=True)
        time.sleep(100)

if __name__ == "__main__":
    command_line.leave(command_line.run(main, Config, prog="script"))
"""


@pytest.fixture
def folder(tmp_path):
    files = {f"train/{i % 2}/{i}.png": x for i, x in enumerate(examples(12)[0])}
    files |= {f"test/{i}/0.png": examples(1)[0][0] for i in range(2)}
    return write_folder(tmp_path / "images", files)


@pytest.fixture
def script(tmp_path, folder):
    (file := tmp_path / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, file, "--folder", folder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def broken(folder):
    """So that every batch of two has one that cannot be read."""
    content = encoded(examples(1)[0][0], "JPEG")
    for path in folder.rglob("train/*/*"):
        path.with_suffix(".jpg").write_bytes(content[: len(content) // 2])
        path.unlink()


def state_and_death(seen, index):
    """Of the process that this runs in, which dies when that was seen."""
    if index:
        while not seen.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    handlers = {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ignored = handlers == {signal.SIG_IGN}
    return np.array([os.getpid(), ignored, jax.config.jax_platforms == "cpu"])


def test_batches_are_the_same_for_any_number_of_workers(folder):
    source = open_source(str(folder))
    # Batches that are large enough to come in shared memory.
    options = {"batch_size": 3, "image_size": 90, "seed": 3, "epoch": 1}
    whole = list(train_stream(source, range(12), **options))
    later = list(train_stream(source, range(12), start_step=1, workers=2, **options))
    np.testing.assert_equal(later, whole[1:])


def test_a_worker_leaves_its_parent_what_it_has_and_tells_if_it_dies(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    seen = tmp_path / "seen"
    dataset = grain.MapDataset.range(2).map(partial(state_and_death, seen))
    elements = in_workers(dataset, 1)
    pid, ignored, on_cpu = next(elements)
    assert pid != os.getpid() and ignored and on_cpu
    assert os.environ["PYTHONWARNINGS"] == "default"
    seen.touch()
    message = r"a process that reads images died; with fewer --workers .* code -9\)"
    with pytest.raises(OSError, match=message):
        next(elements)


def test_images_that_cannot_be_copied_need_no_workers():
    lock = threading.Lock()
    elements = in_workers(grain.MapDataset.range(3).map(lambda i: lock and i), 1)
    with pytest.raises(ValueError, match=r"^--workers expects 0 .* cannot pickle"):
        next(elements)


@pytest.mark.usefixtures("broken")
def test_an_image_that_cannot_be_read_is_one_line(script, folder):
    output, errors = script.communicate(timeout=100)
    assert (script.returncode, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"error: {folder}/train/") and ".jpg cannot be read: " in line


def test_workers_end_when_their_parent_is_killed(script):
    (worker,) = map(int, script.stdout.readline().split())
    assert alive(worker)
    script.kill()
    deadline = time.monotonic() + 60
    while alive(worker):
        if time.monotonic() > deadline:
            os.kill(worker, signal.SIGKILL)
            pytest.fail("it did not")
        time.sleep(0.05)
    script.communicate(timeout=100)


def alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # which nobody waited for
