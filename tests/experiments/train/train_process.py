"""Training runs as processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[3]
OPTIONS = [
    *("--dataset", "digits", "--train-size", "120", "--validation", "0.2"),
    *("--epochs", "12", "--batch-size", "8", "--seeds", "2"),
    *("--model", "cnn-plain", "--width", "0.1", "--output"),
]


def environment(scratch, devices=1, **variables):
    """Of a process on that many CPU devices; all share what is compiled."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        **variables,
    }


def start(scratch, folder, *more, env=None, **popen):
    """Starts `python -m experiments.train`."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *OPTIONS, str(folder), *more],
        cwd=ROOT,
        env=env or environment(scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def ended(process, code=0):
    """What a process said on stderr, once it has left with that code."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def results(folder):
    """All that a run came to, without the times it took."""
    outcome, history = (
        json.loads((folder / name).read_text())
        for name in ("results.json", "history.json")
    )
    for row in (outcome, *history):
        row.pop("seconds")
        row.pop("images_per_second", None)
    with np.load(folder / "kernels.npz") as kernels:
        return outcome, history, dict(kernels)


def assert_same_results(folder, other):
    """Bit for bit."""
    *one, kernels = results(folder)
    *two, expected = results(other)
    assert one == two
    np.testing.assert_equal(kernels, expected)


def checkpoints(folder):
    """Their numbers, in order."""
    names = (path.name for path in folder.glob("checkpoints/*"))
    return sorted(int(name) for name in names if name.isdigit())
