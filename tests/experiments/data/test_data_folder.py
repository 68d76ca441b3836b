"""Folders of image files."""

import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.data.load import load
from experiments.data.open import open_source
from tests.experiments.data.data_cases import encoded, examples, write_folder

IMAGES = examples(6)[0]
FILES = {
    "train/b/2.png": IMAGES[0],
    "train/b/10.PNG": IMAGES[1],
    "train/a/x.png": IMAGES[2],
    "train/a/notes.txt": b"no image",
    "train/a/._x.png": b"what macOS leaves behind",
    "train/.cache/y.png": IMAGES[2],
    "test/b/1.png": IMAGES[3],
    "test/a/1.png": IMAGES[4],
}


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "pictures", FILES)


def test_labels_are_the_sorted_names_of_folders_and_images_sorted_in_them(root):
    source = open_source(str(root))
    assert source.name == str(root) and source.class_names == ("a", "b")
    assert source.sizes == {"train": 3, "test": 2} and source.shape == (8, 9, 3)
    dataset = load(source, train_size=3)
    np.testing.assert_array_equal(dataset.train.images, IMAGES[[2, 1, 0]])
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 1])
    np.testing.assert_array_equal(dataset.test.images, IMAGES[[4, 3]])
    np.testing.assert_array_equal(dataset.test.labels, [0, 1])


@pytest.mark.parametrize(
    ("name", "scored"),
    [("pictures", "test"), ("./pictures", "validation"), ("~/pictures", "val")],
)
def test_other_paths_and_names_of_the_images_to_score(root, name, scored, monkeypatch):
    (root / "test").rename(root / scored)
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    assert open_source(name).sizes == {"train": 3, "test": 2}


def test_whatever_pillow_reads_is_read_in_any_folder_as_rgb_and_upright(tmp_path):
    kinds = {kind: encoded(IMAGES[5], kind) for kind in ("BMP", "GIF", "TIFF", "WEBP")}
    grey, exif = IMAGES[5][..., 0], Image.Exif()
    exif[0x0112] = 6
    files = {f"train/a/0.{kind.lower()}": content for kind, content in kinds.items()}
    files |= {"train/b/0.png": grey, "train/b/DEEP/er/0.Tif": kinds["TIFF"]}
    files["test/b/0.png"] = encoded(np.rot90(IMAGES[1]).copy(), exif=exif)
    source = open_source(str(write_folder(tmp_path / "kinds", files)))
    assert source.sizes == {"train": 6, "test": 1} and source.class_names == ("a", "b")
    assert source.shape == (8, 9, 3)
    for index, expected in {4: np.stack([grey] * 3, axis=-1), 5: IMAGES[5]}.items():
        image, label = source.splits["train"][index]
        np.testing.assert_array_equal(image, expected)
        assert label == 1
    np.testing.assert_array_equal(source.splits["test"][0][0], IMAGES[1])
    write_folder(tmp_path / "kinds", {"test/b/1.png": IMAGES[5][:5]})
    assert open_source(str(tmp_path / "kinds")).shape == (None, None, 3)


def test_what_is_odd_is_one_warning_with_numbers(root, caplog):
    (root / "train/a/notes.txt").unlink()
    open_source(str(root))
    assert not caplog.records
    odd = {f"train/empty{i}/notes.txt": b"" for i in range(7)}
    odd |= {"train/1.png": IMAGES[0], "train/c/1.png": IMAGES[0], "train/a/README": b""}
    open_source(str(write_folder(root, odd)))
    (record,) = caplog.records
    for told in (
        f"--dataset {root} has files that are passed over: 1 README, 1 outside of class ",
        "7 .txt; class folders without images: empty0, empty1, empty2, empty3, empty4, ",
        "and 2 more; classes without images to score: c",
    ):
        assert told in record.getMessage()


def test_class_names_are_of_one_unicode_form_and_may_be_no_utf_8(root):
    composed, apart = "caf\u00e9", "cafe\u0301"
    odd = os.fsdecode(b"caf\xe9")
    files = {f"train/{composed}/1.png": IMAGES[0], f"test/{apart}/1.png": IMAGES[1]}
    files |= {f"{split}/{odd}/{odd}.png": IMAGES[5] for split in ("train", "test")}
    source = open_source(str(write_folder(root, files)))
    assert source.class_names == ("a", "b", r"caf\xe9", composed)
    assert source.sizes == {"train": 5, "test": 4}
    train = pickle.loads(pickle.dumps(source.splits["train"]))
    np.testing.assert_array_equal(train[3][0], IMAGES[5])
    assert train.title(3).endswith(r"train/caf\xe9/caf\xe9.png")
    assert train.checksum() == source.splits["train"].checksum()


def test_folders_that_cannot_be_listed_are_no_fewer_images(root, monkeypatch):
    def walk(path, onerror, **options):
        onerror(PermissionError(13, "Permission denied", str(path)))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(OSError, match="Permission denied"):
        open_source(str(root))


def test_the_fingerprint_is_that_of_a_copy_and_not_of_another_dataset(root, tmp_path):
    def known(path):
        return open_source(str(path)).fingerprint()

    first = known(root)
    # As run folders of earlier versions have it, which go on.
    assert first["checksum"] == sha256(repr((("a", "b"), [
        sha256("".join(f"{path} {label} {(root / split / path).stat().st_size} \n"
                       for path, label in images.items()))
        for split, images in (("test", {"a/1.png": 0, "b/1.png": 1}),
                              ("train", {"a/x.png": 0, "b/10.PNG": 1, "b/2.png": 1}))
    ])))[:16]  # fmt: skip
    copy = shutil.copytree(root, tmp_path / "copy")
    os.utime(copy / "train/b/2.png", (0, 0))
    assert known(copy) == first
    checksums = [first["checksum"]]
    for split in ("train", "test"):
        (copy / split / "b").rename(copy / split / "c")
    checksums.append(known(copy)["checksum"])
    write_folder(copy, {"train/c/11.png": IMAGES[1]})
    checksums.append(known(copy)["checksum"])
    (copy / "train/c/10.PNG").unlink()
    checksums.append(known(copy)["checksum"])
    assert len(set(checksums)) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"junk", "is no image that Pillow reads"),
        (encoded(IMAGES[0])[:100], "cannot be read: .*truncated"),
        (IMAGES[0][:5], "is 5x9x3; expected 8x9x3, .*--image-size"),
    ],
)
def test_a_damaged_image_or_one_of_another_size_is_named(
    root, content, message, monkeypatch
):
    monkeypatch.setattr("experiments.data.source.SAMPLED", 2)  # and it is not seen
    write_folder(root, {"train/b/1.png": content})
    with pytest.raises(ValueError, match=f"pictures/train/b/1.png {message}"):
        load(open_source(str(root)))


@pytest.mark.parametrize(
    ("gone", "added", "message"),
    [
        ("test", ["exam/1.png"], "folders exam, train; expected train, and test"),
        ("*", [], r"pictures', with the folders \(none\); expected"),
        ("test/*/*", [], "without images in .*test; expected <class>/<image>, files"),
        ("-", ["test/B/1.png", "test/d/1.png"], "to score of the classes B, d, of"),
        ("*/b", [], "train on of the classes a; expected two or more"),
    ],
)
def test_folders_that_cannot_be_trained_on(root, gone, added, message):
    for path in root.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_folder(root, dict.fromkeys(added, IMAGES[0]))
    with pytest.raises(ValueError, match=message):
        open_source(str(root))


@pytest.mark.parametrize("name", ["/no/where", "~nobody/there"])
def test_there_is_no_such_folder(name):
    with pytest.raises(ValueError, match=f"^--dataset is '{name}'; there is no such"):
        open_source(name)
