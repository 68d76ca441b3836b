"""A run on the devices of two processes comes to what it comes to on one device."""

import socket

import numpy as np

from tests.train_process import ended, environment, results, start


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_two_processes_of_four_devices_come_to_the_result_of_one_device(tmp_path):
    options = ("--epochs", "2")
    ended(start(tmp_path, tmp_path / "one", *options))
    together = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    processes = [
        start(
            tmp_path,
            tmp_path / "two",
            *options,
            "--distributed",
            env=environment(tmp_path, 4, **together, JAX_PROCESS_ID=str(number)),
        )
        for number in range(2)
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
