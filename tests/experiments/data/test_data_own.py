"""Datasets of one's own, and what a dataset is known by."""

import pickle
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from experiments.data.load import load
from experiments.data.open import open_source
from experiments.data.own import from_splits
from tests.experiments.data.data_cases import encoded, examples

IMAGES, LABELS = examples(9)
TRAIN, TEST = (IMAGES[:6], LABELS[:6]), (IMAGES[6:], LABELS[6:])
GIVEN = {"train": TRAIN, "test": TEST}


def as_source(pair):
    """What TFDS, Grain and Hugging Face have: examples by index."""
    return [{"image": i, "label": n, "id": 7} for i, n in zip(*pair, strict=True)]


def source(**changes):
    return from_splits("mine", {**GIVEN, **changes}, "mine")


@pytest.mark.parametrize("lazy", [False, True])
def test_a_function_gives_arrays_or_examples_by_index(monkeypatch, lazy):
    form = as_source if lazy else tuple
    module = ModuleType("my_data")
    module.images = lambda: {
        "train": form(TRAIN),
        "test": form(TEST),
        "class_names": ["x", "y", "z"],
    }
    monkeypatch.setitem(sys.modules, "my_data", module)
    opened = open_source("my_data:images")
    assert opened.class_names == ("x", "y", "z") and opened.shape == (8, 9, 3)
    dataset = load(opened)
    for part, pair in ((dataset.train, TRAIN), (dataset.test, TEST)):
        np.testing.assert_array_equal(part.images, pair[0])
        np.testing.assert_array_equal(part.labels, pair[1])
    assert dataset.classes == 3


def test_classes_of_arrays_are_counted_and_grey_images_need_no_last_axis():
    grey = source(
        train=(IMAGES[:6, ..., 0], LABELS[:6]), test=(IMAGES[6:, ..., :1], [0] * 3)
    )
    assert grey.class_names == ("0", "1", "2") and grey.shape == (8, 9, 1)
    np.testing.assert_array_equal(grey.splits["train"][1][0], IMAGES[1, ..., :1])
    files = source(train=as_source((map(encoded, IMAGES), LABELS)), class_names="abc")
    assert files.shape == (8, 9, 3)


def test_examples_of_several_sizes_are_found_and_can_be_copied():
    several = [
        {"image": np.full((5 + i, 8, 3), i, np.uint8), "label": i % 2} for i in range(3)
    ]
    opened = source(train=several, test=several, class_names="ab")
    assert opened.shape == (None, None, 3)
    image, label = pickle.loads(pickle.dumps(opened)).splits["train"][1]
    np.testing.assert_array_equal(image, several[1]["image"])
    assert label == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], "mine gives list; expected a mapping: train, test"),
        ({"train": TRAIN}, r"mine gives \['train'\]; expected a mapping"),
        ({**GIVEN, "train": (IMAGES, LABELS[:5])}, "train of mine has 9 images"),
        ({**GIVEN, "test": (IMAGES[:2], [0.0, 1.0])}, r"float64\(2,\); expected as"),
        ({**GIVEN, "test": (IMAGES[:0], LABELS[:0])}, "test of mine has no images"),
        ({**GIVEN, "train": (IMAGES / 255, LABELS)}, r"is float64\(8, 9, 3\); expect"),
        ({**GIVEN, "test": (IMAGES[..., :2], LABELS)}, r"uint8\(8, 9, 2\); .* of 1,"),
        ({**GIVEN, "test": as_source(TEST)}, r"class_names \(\); expected"),
        (dict.fromkeys(GIVEN, (IMAGES, LABELS * 0)), "two or"),
        ({**GIVEN, "class_names": "ab"}, "image 5 of train of .* label is 2; .* 0 to"),
        ({**GIVEN, "train": [{"no": 1}], "class_names": "ab"}, "train of mine .*image"),
    ],
)
def test_what_is_no_dataset_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        from_splits("mine", given, "mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "which cannot be imported: ModuleNotFoundError: No module"),
        ("numpy:no_such", "which cannot be imported: AttributeError: .*no_such"),
        ("numpy:pi", "float; expected a function or class"),
        ("numpy:stack", "which fails: TypeError: .*arrays"),
    ],
)
def test_names_that_give_nothing(name, message):
    with pytest.raises(ValueError, match=f"^--dataset is '{name}', {message}"):
        open_source(name)


def test_a_fingerprint_tells_what_the_data_is():
    known = source().fingerprint()
    assert known == source().fingerprint()
    assert known.pop("checksum") == source(class_names="012").fingerprint()["checksum"]
    assert known == {
        "version": "",
        "shape": [8, 9, 3],
        "sizes": {"train": 6, "test": 3},
        "class_names": ["0", "1", "2"],
    }
    others = [
        source(),
        source(class_names="abc"),
        source(train=(IMAGES[:5], LABELS[:5])),
        source(train=(IMAGES[:6], LABELS[:6][::-1])),
        source(test=TRAIN, train=TEST),
        replace(source(), class_names=("0", "2", "1")),
    ]
    assert len({each.fingerprint()["checksum"] for each in others}) == len(others)


def test_the_stand_in_for_photographs_is_told_apart_by_colour(monkeypatch):
    monkeypatch.setattr("experiments.data.source.SAMPLED", 3)
    opened = open_source("experiments.data.stand_in:photographs")
    assert opened.sizes == {"train": 300, "test": 100} and opened.classes == 10
    assert opened.shape == (None, None, 3)
    (images, labels), (others, expected) = (
        zip(*opened.splits[split].read(range(20)), strict=True)
        for split in ("train", "test")
    )
    np.testing.assert_array_equal(opened.splits["train"][5][0], images[5])
    train, test = (
        np.array([np.mean(image, (0, 1)) - image.mean() for image in part])
        for part in (images, others)
    )
    centres = np.stack([train[np.equal(labels, label)].mean(0) for label in range(10)])
    guesses = ((test[:, None] - centres) ** 2).sum(-1).argmin(axis=1)
    assert (guesses == expected).mean() > 0.4  # by chance 0.1
