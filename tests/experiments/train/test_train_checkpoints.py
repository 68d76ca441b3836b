"""Checkpoints that are damaged, cut short or gone."""

import asyncio
import gc
import re
import resource
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

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


def restored(folder):
    checkpoints, warnings = opened(folder)
    found = checkpoints.restore(state(0))
    checkpoints.close()
    return found, warnings


def test_the_last_is_restored_and_few_are_kept(folder):
    (found, progress), warnings = restored(folder)
    jax.tree.map(np.testing.assert_array_equal, found, state(9))
    assert progress == {"epoch": 9, "loss": [0.5, None]}
    assert warnings == []
    assert len(list((folder / "checkpoints").iterdir())) == KEPT


def cut_short(path):
    path.write_bytes(path.read_bytes()[:100])


def changed(path):
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])


@pytest.mark.parametrize("damage", [cut_short, changed, lambda path: path.unlink()])
def test_a_damaged_one_is_left_out_with_a_warning(folder, damage, capfd):
    damage(largest(folder, 9))
    (found, progress), (warning,) = restored(folder)
    jax.tree.map(np.testing.assert_array_equal, found, state(5))
    assert progress["epoch"] == 5
    assert warning == f"{folder / 'checkpoints' / '9'} is damaged, and left out"
    assert capfd.readouterr().err == ""  # Orbax has read nothing of it


@pytest.mark.parametrize("content", [None, "", '{"9": {', "[]", "null", "é"])
def test_without_checksums_it_is_trusted(folder, content):
    path = folder / "checkpoints.json"
    path.unlink() if content is None else path.write_text(content, "latin-1")
    (found, progress), warnings = restored(folder)
    jax.tree.map(np.testing.assert_array_equal, found, state(9))
    assert (progress["epoch"], warnings) == (9, [])


def test_a_state_of_another_network_is_refused_and_nothing_is_deleted(folder):
    checkpoints, warnings = opened(folder)
    with pytest.raises(ValueError, match="structures do not match"):
        checkpoints.restore({"other": jnp.zeros(3)})
    checkpoints.close()
    assert warnings == []
    assert restored(folder)[0][1]["epoch"] == 9


def test_a_run_goes_on_after_a_damaged_one_under_the_same_number(folder):
    changed(largest(folder, 9))
    checkpoints, _ = opened(folder)
    checkpoints.restore(state(0))
    checkpoints.save(9, state(7), {"epoch": 9})
    checkpoints.close()
    (found, _), warnings = restored(folder)
    jax.tree.map(np.testing.assert_array_equal, found, state(7))
    assert warnings == []


def test_a_write_that_fails_after_another_is_not_heard(tmp_path, monkeypatch, caplog):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    checkpoints, _ = opened(tmp_path)
    promise, write = tensorstore.Promise.new()

    async def save():
        await asyncio.gather(one(), other())

    async def one():
        await write

    async def other():
        raise OSError

    loop = asyncio.new_event_loop()
    with pytest.raises(OSError):
        loop.run_until_complete(save())
    loop.close()
    promise.set_exception(OSError())
    gc.collect()
    assert heard == []
    assert caplog.records == []
    unrelated = SimpleNamespace(exc_value=KeyError())
    sys.unraisablehook(unrelated)
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


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"--output is .*file/run, which cannot be written"):
        Checkpoints(tmp_path / "file" / "run", print)


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
    (found, _), warnings = restored(folder)
    jax.tree.map(np.testing.assert_array_equal, found, state(9))
    assert warnings == []
