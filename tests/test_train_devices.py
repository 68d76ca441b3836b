"""Two processes: what they train, and what one of them lets the other know."""

import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from experiments.train import devices
from experiments.train.config import Config
from tests.train_process import ROOT, ended, environment, results, start

WAITING = """
from dataclasses import dataclass

import jax

from experiments import command_line
from experiments.train import devices, interruption

@dataclass
class Config:
    pass

def main(config):
    devices.join()
    with interruption.noticed() as interrupted:
        print("waiting", flush=True)
        while devices.agreed(not interrupted()):
            pass
        raise KeyboardInterrupt(f"process {jax.process_index()}")

command_line.leave(command_line.run(main, Config, prog="waiting"))
"""


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def environments(scratch, each):
    """Of two processes with that many devices each."""
    together = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    return [
        environment(scratch, each, **together, JAX_PROCESS_ID=str(number))
        for number in range(2)
    ]


def test_two_processes_of_four_devices_come_to_the_result_of_one_device(tmp_path):
    options = ("--epochs", "2")
    ended(start(tmp_path, tmp_path / "one", *options))
    processes = [
        start(tmp_path, tmp_path / "two", *options, "--distributed", env=env)
        for env in environments(tmp_path, 4)
    ]
    for process in processes:
        ended(process)
    (one, history, kernels), (two, again, others) = (
        results(tmp_path / name) for name in ("one", "two")
    )
    assert two["accuracy"] == one["accuracy"]
    assert two["chosen_epoch"] == one["chosen_epoch"]
    # Float32 sums in another order, over 26 steps.
    for row, other in zip(history, again, strict=True):
        for name in ("loss", "norm", "scale_free_loss"):
            values = (np.array(x[name], float) for x in (row, other))
            np.testing.assert_allclose(*values, rtol=1e-4)
    assert kernels.keys() == others.keys()
    for name, kernel in kernels.items():
        np.testing.assert_allclose(kernel, others[name], rtol=1e-3, atol=1e-5)


def test_processes_that_would_each_make_a_folder_are_refused(tmp_path):
    message = "^--distributed is given without --output; expected a folder that all "
    with pytest.raises(ValueError, match=message):
        Config(distributed=True).check()
    Config(distributed=True, output=tmp_path).check()


def test_a_signal_to_one_process_is_heard_by_both(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WAITING],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for env in environments(tmp_path, 1)
    ]
    while "waiting" not in processes[1].stdout.readline():
        assert processes[1].poll() is None
    processes[1].send_signal(signal.SIGTERM)
    for number, process in enumerate(processes):
        assert ended(process, 130).endswith(f"interrupted: process {number}\n")


def test_what_fails_in_one_process_fails_in_all(monkeypatch):
    with devices.together():
        pass
    with pytest.raises(ValueError, match="why"), devices.together():
        raise ValueError("why")
    monkeypatch.setattr(devices, "agreed", lambda number: 0)  # the other has failed
    message = "another process of the run failed, and says why"
    with pytest.raises(OSError, match=message), devices.together():
        pass
