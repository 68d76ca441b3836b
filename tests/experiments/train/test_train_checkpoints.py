"""Checkpoints that are damaged, cut short or gone."""

import re
import resource
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.train.checkpoints import KEPT, Checkpoints


def state(number):
    weights = jax.random.normal(jax.random.key(number), (64, 8))
    return {"weights": weights, "step": jnp.int32(number)}


def opened(folder):
    warnings = []
    return Checkpoints(folder, warnings.append), warnings


@pytest.fixture
def folder(tmp_path):
    checkpoints, _ = opened(tmp_path)
    for number in (3, 5, 9):
        checkpoints.save(number, state(number), {"epoch": number, "loss": [0.5, None]})
    checkpoints.close()
    return tmp_path


def largest(folder, number):
    """The file of the weights."""
    found = (folder / "checkpoints" / str(number)).rglob("*")
    return max((path for path in found if path.is_file()), key=lambda x: x.stat().st_size)


def assert_restored(folder, number, weights=None):
    """That this checkpoint is restored, with the state of that number; the warnings."""
    checkpoints, warnings = opened(folder)
    found, progress = checkpoints.restore(state(0))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, found, state(weights or number))
    assert progress["epoch"] == number
    return warnings


def cut_short(path):
    path.write_bytes(path.read_bytes()[:100])


def changed(path):
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])


@pytest.mark.parametrize("damage", [cut_short, changed, lambda path: path.unlink()])
def test_a_damaged_one_is_left_out_and_written_again(folder, damage, capfd):
    assert len(list((folder / "checkpoints").iterdir())) == KEPT
    damage(largest(folder, 9))
    (warning,) = assert_restored(folder, 5)
    assert warning == f"{folder / 'checkpoints' / '9'} is damaged, and left out"
    assert capfd.readouterr().err == ""  # Orbax has read nothing of it
    checkpoints, _ = opened(folder)
    checkpoints.save(9, state(7), {"epoch": 9})
    checkpoints.close()
    assert assert_restored(folder, 9, weights=7) == []


@pytest.mark.parametrize("content", [None, '{"9": {', "[]", "é"])
def test_without_checksums_it_is_trusted(folder, content):
    path = folder / "checkpoints.json"
    path.unlink() if content is None else path.write_text(content, "latin-1")
    assert assert_restored(folder, 9) == []


def test_a_state_of_another_network_is_refused_and_nothing_is_deleted(folder):
    checkpoints, warnings = opened(folder)
    with pytest.raises(ValueError, match="structures do not match"):
        checkpoints.restore({"other": jnp.zeros(3)})
    checkpoints.close()
    assert warnings == assert_restored(folder, 9) == []


def test_a_write_that_fails_after_another_is_not_heard(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    checkpoints, _ = opened(tmp_path)
    unrelated = SimpleNamespace(exc_value=KeyError())
    for unheard in (SimpleNamespace(exc_value="Event loop is closed"), unrelated):
        sys.unraisablehook(unheard)
    assert heard == [unrelated]
    checkpoints.close()
    assert sys.unraisablehook == heard.append


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_an_error_that_is_not_the_disk_is_not_called_that(folder, kind, monkeypatch):
    checkpoints, _ = opened(folder)

    def save(*_, **__):
        raise kind("shapes differ")

    monkeypatch.setattr(checkpoints._manager, "save", save)
    with pytest.raises(kind, match=r"^shapes differ$"):
        checkpoints.save(12, state(12), {"epoch": 12})
    checkpoints.close()


@pytest.mark.parametrize("largest", [0, 100, 1000])
def test_a_full_disk_leaves_the_earlier_ones(folder, largest):
    checkpoints, _ = opened(folder)
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = f"--output is {folder}, which cannot be written: File too large"
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        with pytest.raises(OSError, match=f"^{re.escape(message)}"):
            checkpoints.save(12, state(12), {"epoch": 12, "loss": list(range(1000))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    checkpoints.close()
    assert assert_restored(folder, 9) == []
