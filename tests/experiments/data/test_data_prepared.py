"""TFDS datasets: a tiny one that is made here, and what is wrong with others."""

import io
import json
import pickle
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import prepared
from experiments.data.load import load
from experiments.data.open import open_source
from tests.experiments.data.data_cases import (
    as_records,
    encoded,
    examples,
    features,
    prepare,
)

SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of a dataset of 40 training and 11 test images."""
    folder = tmp_path_factory.mktemp("tfds")
    splits = {
        "train": as_records(*examples(40)),
        "test": as_records(*examples(11, seed=1)),
    }
    prepare(folder, splits)
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy to damage."""
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


def test_images_and_labels_are_those_that_were_prepared(tiny, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    source = open_source("tiny")
    assert source.name == "tiny" and source.classes == 3 and source.shape == (8, 9, 3)
    assert source.sizes == {"train": 40, "test": 11}
    dataset = load(source)
    for split, part in {"train": dataset.train, "test": dataset.test}.items():
        images, labels = examples(source.sizes[split], seed=split == "test")
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)
        image, label = pickle.loads(pickle.dumps(source.splits[split]))[5]
        np.testing.assert_array_equal(image, images[5])
        assert label == labels[5]


def test_grey_images_and_a_validation_split_for_want_of_a_test_split(tmp_path):
    images, labels = examples(6, channels=1)
    records = as_records(images, labels)
    splits = {"train": records, "validation": records[:4]}
    prepare(tmp_path, splits, features((8, 9, 1)))
    dataset = load(open_source("tiny", data_dir=tmp_path))
    np.testing.assert_array_equal(dataset.train.images, images)
    np.testing.assert_array_equal(dataset.test.images, images[:4])


def test_files_may_be_grey_and_of_16_bits_and_any_size(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 9, 1)).astype(np.uint16)
    records = [*as_records(*examples(2)), {"image": encoded(deep), "label": 0}]
    prepare(tmp_path, dict.fromkeys(SPLITS, records), features((None, None, 3)))
    source = open_source("tiny", data_dir=tmp_path)
    assert source.shape == (None, None, 3)
    image, _ = source.splits["train"][2]
    np.testing.assert_array_equal(image, np.repeat(deep // 256, 3, axis=-1))


def test_the_fingerprint_has_the_version_and_changes_with_the_images(copy, tmp_path):
    known = open_source("tiny", data_dir=copy).fingerprint()
    assert known["version"] == "1.0.0" and known["class_names"] == ["0", "1", "2"]
    again = shutil.copytree(copy, tmp_path / "again")
    assert open_source("tiny", data_dir=again).fingerprint() == known
    prepare(tmp_path / "more", dict.fromkeys(SPLITS, as_records(*examples(11))))
    more = open_source("tiny", data_dir=tmp_path / "more").fingerprint()
    assert more["checksum"] != known["checksum"]


def test_a_test_split_without_labels_gives_way_to_validation(tmp_path):
    records = as_records(*examples(5))
    hidden = [{**record, "label": -1} for record in records[:2]]
    splits = {"train": records, "test": hidden}
    prepare(tmp_path / "two", splits)
    with pytest.raises(ValueError, match=r"image 0 of test of .*'tiny' .* label is -1;"):
        open_source("tiny", data_dir=tmp_path / "two")
    prepare(tmp_path / "three", {**splits, "validation": records[:4]})
    source = open_source("tiny", data_dir=tmp_path / "three")
    assert source.sizes == {"train": 5, "test": 4}


RECORDS = as_records(*examples(1))
UNLABELLED = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(8, 9, 3))})


@pytest.mark.parametrize(
    ("scored", "kinds", "message"),
    [
        ("extra", features(), "has the splits train, extra; expected"),
        ("test", UNLABELLED, "a feature 'label' that is a tfds.* it has image"),
    ],
)
def test_datasets_of_another_kind(tmp_path, scored, kinds, message):
    records = [{name: example[name] for name in kinds} for example in RECORDS]
    prepare(tmp_path, {"train": records, scored: records}, kinds)
    with pytest.raises(ValueError, match=message):
        open_source("tiny", data_dir=tmp_path)


def tfrecord(text):
    return json.dumps({**json.loads(text), "fileFormat": "tfrecord"}).encode()


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("*test.array_record*", None, "'tiny' in .*tiny/1.0.0 cannot be read: .*No such"),
        *(
            ("*test.array_record*", damage, "'tiny' in .* (cannot be read:|is no image)")
            for damage in (lambda _: b"", lambda x: x[: len(x) // 2], lambda x: x[:-9])
        ),
        *(
            (name, lambda _: b"[1]", "dataset 'tiny' in .*copy cannot be opened")
            for name in ("dataset_info.json", "features.json")
        ),
        ("features.json", None, "--dataset is 'tiny'; .* no prepared dataset"),
        (
            "dataset_info.json",
            tfrecord,
            "cannot be read: .*TFRECORD is not supported",
        ),
    ],
)
def test_what_is_damaged_or_missing(copy, file, damage, message):
    (path,) = copy.glob(f"tiny/1.0.0/{file}")
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(content))
    with pytest.raises(ValueError, match=message):
        open_source("tiny", data_dir=copy)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny:2.0.0", r"'tiny:2.0.0' is not prepared: .* holds tiny/1\.0\.0; expected"),
        ("tiny/big", r"is not prepared: .* tiny/<version> .*--data-dir or TFDS_DATA_DIR"),
        ("mnist", "'mnist' is not prepared: .*TFDS_DATA_DIR.*pip install tensorflow"),
        ("cifar1O", r"--dataset is '.*'; expected digits, .* as .*cifar10.*; .*1\.0\.0$"),
        ("", "--dataset is ''; expected digits, .*cifar10.* holds tiny"),
    ],
)
def test_names_that_are_not_there(tiny, monkeypatch, name, expected):
    (tiny / "mnist" / "3.0.2").mkdir(parents=True, exist_ok=True)
    with pytest.raises(ValueError, match=expected):
        open_source(name, data_dir=tiny)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tiny))
    with pytest.raises(ValueError, match="tensorflow_datasets holds no prepared"):
        open_source(name)


@pytest.mark.parametrize(
    ("tensorflow", "answer", "message"),
    [
        (False, None, "pip install tensorflow"),
        (True, urllib.error.URLError("no route"), "cannot be prepared in .*: .*no route"),
        (True, None, "cannot be prepared in .*: checksum"),
        (True, urllib.error.HTTPError("", 404, "", {}, None), "in .*: checksum"),
    ],
)
def test_download_that_fails(tmp_path, monkeypatch, tensorflow, answer, message):
    def fail(*_, **__):
        raise RuntimeError("checksum")

    def answers(*_, **__):
        if answer:
            raise answer
        return io.BytesIO()

    find = prepared.importlib.util
    monkeypatch.setattr(find, "find_spec", lambda _: object() if tensorflow else None)
    monkeypatch.setattr(urllib.request, "urlopen", answers)
    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(ValueError, match=f"^--download: .*{message}"):
        open_source("mnist", data_dir=tmp_path, download=True)
