"""Datasets: digits, a tiny TFDS one that is made here, and what is wrong with others."""

import io
import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from experiments.classify import data

tfds = pytest.importorskip("tensorflow_datasets")


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, format="PNG")
    file.seek(0)
    return file


def prepare(folder, splits, features, name="tiny"):
    """Writes a TFDS dataset without TensorFlow."""
    path = folder / name / "1.0.0"
    path.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name=name,
        version=tfds.core.Version("1.0.0"),
        data_dir=str(path),
        module_name=name,
    )
    writer = tfds.core.SequentialWriter(
        tfds.core.DatasetInfo(builder=identity, features=features),
        max_examples_per_shard=1000,
        file_format=tfds.core.FileFormat.ARRAY_RECORD,
    )
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()
    return path


def features(shape=(8, 9, 3), **others):
    image = tfds.features.Image(shape=shape)
    return tfds.features.FeaturesDict(
        {"image": image, "label": tfds.features.ClassLabel(num_classes=3), **others}
    )


def examples(count, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    shape = (count, 8, 9, channels)
    images = generator.integers(0, 256, shape, np.uint8)
    return images, np.arange(count) % 3


def as_records(images, labels):
    return [
        {"image": png(image), "label": int(label)}
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of a dataset of 40 training and 11 test images."""
    folder = tmp_path_factory.mktemp("tfds")
    splits = {
        "train": as_records(*examples(40)),
        "test": as_records(*examples(11, seed=1)),
    }
    prepare(folder, splits, features())
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy to damage."""
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


def test_digits_are_all_there_once_and_each_class_is_halved():
    dataset = data.load("digits")
    (train, train_labels), (test, test_labels) = dataset.train, dataset.test
    assert train.shape == (898, 8, 8, 1) and test.shape == (899, 8, 8, 1)
    assert train.dtype == np.float32 and train_labels.dtype == np.int32
    assert dataset.classes == 10
    counts = np.bincount(train_labels) - np.bincount(test_labels)
    assert np.abs(counts).max() <= 1
    np.testing.assert_allclose(train.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(), 1, atol=1e-5)
    # Back in grey levels, the two halves are the digits.
    original = load_digits().images
    scale = original.std() / np.concatenate([train, test]).std()
    shifted = np.concatenate([train, test]).reshape(-1, 64) * scale
    levels = np.round(shifted - shifted.min()).astype(int)
    assert sorted(map(tuple, levels)) == sorted(
        map(tuple, original.reshape(-1, 64).astype(int))
    )


def test_a_smaller_training_set_is_always_the_same_draw_and_the_test_set_whole():
    small, again, whole = (data.load("digits", train_size=n) for n in (100, 100, None))
    np.testing.assert_array_equal(small.train.images, again.train.images)
    assert len(small.train.labels) == 100
    assert len(set(small.train.labels.tolist())) == 10
    np.testing.assert_array_equal(small.test.labels, whole.test.labels)


def test_validation_holds_out_training_images():
    whole = data.load("digits")
    held = data.load("digits", validation=True)
    assert len(held.train.labels) == 898 - 898 // 5
    assert len(held.test.labels) == 898 // 5
    parts = np.concatenate([held.train.labels, held.test.labels])
    np.testing.assert_array_equal(np.bincount(parts), np.bincount(whole.train.labels))


@pytest.mark.parametrize("size", [-5, 9, 899])
def test_train_size_must_fit(size):
    with pytest.raises(ValueError, match=rf"--train-size is {size}; expected 10 .* 898"):
        data.load("digits", train_size=size)
    with pytest.raises(ValueError, match=r"to 719 \(its training images less those held"):
        data.load("digits", train_size=720, validation=True)


def test_tfds_images_are_read_and_normalized_by_channel(tiny, monkeypatch):
    images, labels = examples(40)
    test_images, test_labels = examples(11, seed=1)
    mean, deviation = images.mean((0, 1, 2)), images.std((0, 1, 2))
    monkeypatch.setattr(data, "DECODED_AT_ONCE", 16)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    tracked = []

    def track(starts, what):
        tracked.append((what, list(starts)))
        return tracked[-1][1]

    dataset = data.load("tiny", track=track)
    np.testing.assert_allclose(
        dataset.train.images, (images - mean) / deviation, atol=1e-4
    )
    np.testing.assert_array_equal(dataset.train.labels, labels)
    np.testing.assert_allclose(
        dataset.test.images, (test_images - mean) / deviation, atol=1e-4
    )
    np.testing.assert_array_equal(dataset.test.labels, test_labels)
    assert dataset.classes == 3
    assert tracked == [("reading tiny, train", [0, 16, 32])]
    part = data.load("tiny", train_size=7)
    order = np.sort(np.random.default_rng(data.SEED).permutation(40)[:7])
    np.testing.assert_array_equal(part.train.labels, labels[order])


def test_grey_images_and_a_validation_split_for_want_of_a_test_split(tmp_path):
    images, labels = examples(6, channels=1)
    records = as_records(images, labels)
    splits = {"train": records, "validation": as_records(images[:4], labels[:4])}
    prepare(tmp_path, splits, features((8, 9, 1)))
    dataset = data.load("tiny", data_dir=tmp_path)
    assert dataset.train.images.shape == (6, 8, 9, 1)
    np.testing.assert_allclose(dataset.test.images, dataset.train.images[:4], atol=1e-6)


@pytest.mark.parametrize(
    ("splits", "shape", "others", "message"),
    [
        (("train", "test"), (None, None, 3), {}, r"images of shape \(None, None, 3\)"),
        (
            ("train", "extra"),
            (8, 9, 3),
            {},
            "has the splits train, extra; expected",
        ),
        (("train", "test"), (8, 9, 3), {"label": None}, "a feature 'label' that is a"),
    ],
)
def test_datasets_of_another_kind(tmp_path, splits, shape, others, message):
    records = as_records(*examples(3))
    kinds = features(shape)
    if others:
        kinds = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=shape)})
        records = [{"image": record["image"]} for record in records]
    prepare(tmp_path, {splits[0]: records, splits[1]: records[:1]}, kinds)
    with pytest.raises(ValueError, match=message):
        data.load("tiny", data_dir=tmp_path)


def test_labels_that_are_missing(tmp_path):
    splits = {
        "train": as_records(*examples(3)),
        "test": [{**record, "label": -1} for record in as_records(*examples(2))],
    }
    prepare(tmp_path, splits, features())
    with pytest.raises(ValueError, match="has images without a label in test"):
        data.load("tiny", data_dir=tmp_path)


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_a_truncated_file(copy, kept):
    (file,) = copy.glob("tiny/1.0.0/*test.array_record*")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"'tiny' in .*tiny/1.0.0 cannot be read: "):
        data.load("tiny", data_dir=copy)


def test_a_missing_file(copy):
    (file,) = copy.glob("tiny/1.0.0/*test.array_record*")
    file.unlink()
    with pytest.raises(ValueError, match=r"cannot be read: .*No such file"):
        data.load("tiny", data_dir=copy)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_description(copy, name, content):
    (copy / "tiny/1.0.0" / name).write_text(content)
    with pytest.raises(ValueError, match=r"dataset 'tiny' in .*copy cannot be opened: "):
        data.load("tiny", data_dir=copy)


def test_another_file_format(copy):
    path = copy / "tiny/1.0.0/dataset_info.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="in the format tfrecord; expected array_record"):
        data.load("tiny", data_dir=copy)


def test_a_folder_that_is_no_prepared_dataset(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(
        ValueError,
        match=r"cifar10 is not a prepared TFDS dataset: there is no .*_info.json",
    ):
        data.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["tiny:2.0.0", "tiny/big"])
def test_a_version_or_config_that_is_not_there(tiny, name):
    message = rf"dataset '{name}' is not prepared: .* holds tiny/1\.0\.0$"
    with pytest.raises(ValueError, match=message):
        data.load(name, data_dir=tiny)


def test_a_description_without_the_features(copy):
    (copy / "tiny/1.0.0/features.json").unlink()
    with pytest.raises(ValueError, match=r"tiny is not a prepared .* features\.json"):
        data.load("tiny", data_dir=copy)


@pytest.mark.parametrize("name", ["cifar1O", "../cifar10", ""])
def test_unknown_names_are_met_with_those_that_are_close_or_there(tmp_path, tiny, name):
    expected = r"--dataset is '.*'; expected digits, .*\(none is\), .* such as .*cifar10"
    with pytest.raises(ValueError, match=expected):
        data.load(name, data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"a dataset prepared in .* \(tiny\), or one"):
        data.load(name, data_dir=tiny)


def test_a_dataset_that_is_not_prepared(tmp_path, monkeypatch):
    expected = (
        r"'mnist' is not prepared: looked for .*mnist/<version>/dataset_info.json; .*"
    )
    with pytest.raises(
        ValueError, match=expected + "TFDS_DATA_DIR.*pip install tensorflow"
    ):
        data.load("mnist", data_dir=tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=rf"{tmp_path}/tensorflow_datasets/mnist"):
        data.load("mnist")


def test_download_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--download: .* pip install tensorflow"):
        data.load("mnist", data_dir=tmp_path, download=True)


def test_download_without_a_network(tmp_path, monkeypatch):
    def refuse(url, timeout):
        assert timeout <= 10
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(ValueError, match=r"cannot be downloaded, .* no route to host"):
        data.load("mnist", data_dir=tmp_path, download=True)


@pytest.mark.parametrize("answer", [io.BytesIO(), "an error"])
def test_download_that_tfds_fails_at(tmp_path, monkeypatch, answer):
    def answers(url, timeout):
        if answer == "an error":  # which is an answer too
            raise urllib.error.HTTPError(url, 404, "Not Found", None, None)
        return answer

    def fail(*_, **__):
        raise RuntimeError("checksum")

    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(urllib.request, "urlopen", answers)
    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(ValueError, match=r"failed to prepare 'mnist' in .*: checksum"):
        data.load("mnist", data_dir=tmp_path, download=True)
