"""Two processes: what they train, and what one of them lets the other know."""

import signal
import socket
import time

import numpy as np
import pytest

from experiments.fit import devices
from tests.experiments.train.train_process import (
    checkpoints,
    ended,
    environment,
    results,
    start,
)


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


def both(scratch, folder, *options, devices):
    """Starts the two processes of a run."""
    return [
        start(scratch, folder, *options, "--distributed", env=env)
        for env in environments(scratch, devices)
    ]


def test_two_processes_that_a_signal_stopped_come_to_the_result_of_one(tmp_path):
    options = ("--epochs", "2", "--checkpoint-minutes", "0")
    ended(start(tmp_path, tmp_path / "one", *options))
    folder = tmp_path / "two"
    first, second = both(tmp_path, folder, *options, devices=4)
    while not checkpoints(folder)[1:]:
        assert second.poll() is None
        time.sleep(0.005)
    second.send_signal(signal.SIGTERM)
    message = f"interrupted: the same command with --output {folder} goes on at epoch "
    for process in (first, second):
        assert ended(process, 130).splitlines()[-1].startswith(message)
    first, second = both(tmp_path, folder, *options, devices=4)
    assert "going on at epoch" in ended(first)
    ended(second)
    (one, history, kernels), (two, again, others) = (
        results(tmp_path / name) for name in ("one", "two")
    )
    assert two["accuracy"] == one["accuracy"]
    assert two["chosen_epoch"] == one["chosen_epoch"]
    # Float32 sums in another order, over 30 steps.
    for row, other in zip(history, again, strict=True):
        for name in ("loss", "norm", "scale_free_loss"):
            values = (np.array(x[name], float) for x in (row, other))
            np.testing.assert_allclose(*values, rtol=1e-4)
    assert kernels.keys() == others.keys()
    for name, kernel in kernels.items():
        np.testing.assert_allclose(kernel, others[name], rtol=1e-3, atol=1e-5)


def test_a_process_that_does_not_see_the_folder_says_so(tmp_path):
    (tmp_path / "config.json").touch()
    devices.check_shared(tmp_path)
    message = f"^--output is {tmp_path}/b, in which process 0 does not see what process 0"
    with pytest.raises(ValueError, match=message):
        devices.check_shared(tmp_path / "b")


def test_what_fails_in_one_process_fails_in_all(monkeypatch):
    with devices.together():
        pass
    with pytest.raises(ValueError, match="why"), devices.together():
        raise ValueError("why")
    monkeypatch.setattr(devices, "agreed", lambda number: 0)  # the other has failed
    message = "another process of the run failed, and says why"
    with pytest.raises(OSError, match=message), devices.together():
        pass
