"""Decoded images on disk."""

import resource
import shutil

import numpy as np
import pytest

from experiments.data import cache
from experiments.data.load import load
from experiments.data.open import open_source
from tests.experiments.data.data_cases import examples, write_folder

IMAGES, LABELS = examples(12)


@pytest.fixture
def root(tmp_path):
    """A folder of images."""
    files = {f"train/{i % 3}/{i:02d}.png": image for i, image in enumerate(IMAGES)}
    files |= {f"test/{i}/0.png": IMAGES[i] for i in range(3)}
    return write_folder(tmp_path / "pictures", files)


@pytest.fixture
def decode(root, tmp_path):
    """Loads the images, and gives the names of what was decoded for that."""

    def decode(cache_dir=tmp_path / "cache", meanwhile=lambda: None):
        tracked = []

        def track(starts, what):
            meanwhile()
            tracked.append(what.rpartition(", ")[2])
            return starts

        dataset = load(open_source(str(root)), track=track, cache_dir=cache_dir)
        for part in (dataset.train, dataset.test):
            order = np.argsort(LABELS[: len(part.labels)], kind="stable")
            np.testing.assert_array_equal(part.images, IMAGES[order])
            np.testing.assert_array_equal(part.labels, LABELS[order])
        return tracked

    return decode


def test_images_are_decoded_once_and_again_if_they_are_missing(
    decode, tmp_path, monkeypatch, caplog
):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "DECODED_AT_ONCE", 5)
    with pytest.raises(KeyboardInterrupt):
        decode(meanwhile=stop)
    assert decode() == ["train", "test"]
    assert decode() == []
    next(tmp_path.glob("cache/*-test-*.npz")).unlink()
    assert decode() == ["test"]
    assert not caplog.records


def test_a_source_in_memory_is_not_kept(tmp_path):
    load(open_source("digits"), cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: content[:400] + b"!" + content[401:],
        lambda content: b"",
        lambda content: b"[]",
    ],
)
def test_what_is_damaged_is_decoded_again_with_one_line(decode, tmp_path, caplog, damage):
    decode()
    (damaged,) = tmp_path.glob("cache/*-train-*.npz")
    damaged.write_bytes(damage(damaged.read_bytes()))
    assert decode() == ["train"]
    (record,) = caplog.records
    message = record.getMessage()
    assert "images are decoded again: " in message and "\n" not in message
    assert decode() == []


def test_changed_images_and_copies_are_decoded_anew(root, decode, tmp_path):
    decode()
    other = shutil.copytree(root, tmp_path / "other" / "pictures")
    for folder in (other, root):
        write_folder(folder, {"train/0/00.png": 255 - IMAGES[0]})
        changed = load(open_source(str(folder)), cache_dir=tmp_path / "cache")
        np.testing.assert_array_equal(changed.train.images[0], 255 - IMAGES[0])
        if folder is other:
            assert decode() == []


def test_two_decode_the_same_images_at_once(decode):
    inner = []
    outer = decode(meanwhile=lambda: inner.extend(decode()))
    assert inner == ["train", "test"] and outer == ["train"]
    assert decode() == []


def test_a_folder_that_cannot_be_written(decode, tmp_path):
    (tmp_path / "file").touch()
    message = r"--cache-dir is .*file/cache, .*: Not a directory .* CONVSIM_JAX_CACHE\)"
    with pytest.raises(OSError, match=message):
        decode(cache_dir=tmp_path / "file" / "cache")


def test_a_full_disk(decode, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"--cache-dir is .* kept: File too large"):
            decode()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("cache/*"))
