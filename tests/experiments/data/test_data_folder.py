"""Folders of image files."""

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


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVSIM_JAX_CACHE", str(tmp_path / "cache"))


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


def test_whatever_pillow_reads_is_read_in_any_folder_as_rgb(tmp_path):
    kinds = {kind: encoded(IMAGES[5], kind) for kind in ("BMP", "GIF", "TIFF", "WEBP")}
    grey = IMAGES[5][..., 0]
    files = {f"train/a/0.{kind.lower()}": content for kind, content in kinds.items()}
    files |= {"train/b/0.png": grey, "train/b/DEEP/er/0.Tif": kinds["TIFF"]}
    files |= {"test/b/0.png": IMAGES[5][:5]}
    source = open_source(str(write_folder(tmp_path / "kinds", files)))
    assert source.sizes == {"train": 6, "test": 1} and source.class_names == ("a", "b")
    assert source.shape == (None, None, 3)  # of several sizes
    for index, expected in {4: np.stack([grey] * 3, axis=-1), 5: IMAGES[5]}.items():
        image, label = source.splits["train"][index]
        np.testing.assert_array_equal(image, expected)
        assert label == 1


def test_what_is_odd_is_one_warning_with_numbers(root, caplog):
    (root / "train/a/notes.txt").unlink()
    open_source(str(root))
    assert not caplog.records
    nothing = {f"train/empty{i}/notes.txt": b"" for i in range(7)}
    odd = {"train/1.png": IMAGES[0], "train/A/1.png": IMAGES[0], "train/a/README": b""}
    open_source(str(write_folder(root, nothing | odd)))
    (record,) = caplog.records
    assert record.getMessage() == (
        f"warning: --dataset {root} has what is passed over: 1 README, 1 outside of "
        "class folders, 7 .txt; 7 class folders without images: empty0, empty1, empty2, "
        "empty3, empty4, and 2 more; 1 classes without images to score: A; classes "
        "whose names differ in case alone: A, a"
    )


def test_names_that_differ_in_unicode_form_alone_are_one_class(root, caplog):
    composed, apart = "caf\u00e9", "cafe\u0301"
    files = {f"train/{composed}/1.png": IMAGES[0], f"train/{apart}/2.png": IMAGES[1]}
    files[f"test/{apart}/1.png"] = IMAGES[2]
    source = open_source(str(write_folder(root, files)))
    assert source.class_names == ("a", "b", composed)
    assert source.sizes == {"train": 5, "test": 3}
    assert f"differ in their Unicode form: {composed}" in caplog.text


def test_names_that_are_no_utf_8(root):
    odd = os.fsdecode(b"caf\xe9")
    write_folder(root, {f"{s}/{odd}/{odd}.png": IMAGES[5] for s in ("train", "test")})
    source = open_source(str(root))
    assert source.class_names == ("a", "b", r"caf\xe9")
    examples = pickle.loads(pickle.dumps(source.splits["train"]))
    np.testing.assert_array_equal(examples[3][0], IMAGES[5])
    assert examples.title(3).endswith(r"train/caf\xe9/caf\xe9.png")
    assert examples.checksum() == source.splits["train"].checksum()
    load(source).train.images[3].tobytes()


def test_folders_that_cannot_be_listed_are_no_fewer_images(root, monkeypatch):
    def walk(path, onerror, **options):
        onerror(PermissionError(13, "Permission denied", str(path)))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(OSError, match="Permission denied"):
        open_source(str(root))


def test_pictures_that_lie_have_the_size_that_they_are_read_in(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {f"{s}/a/0.png": IMAGES[0] for s in ("train", "test")}
    turned = encoded(np.rot90(IMAGES[1]).copy(), exif=exif)
    source = open_source(str(write_folder(tmp_path, {**files, "train/b/0.png": turned})))
    assert source.shape == (8, 9, 3)
    np.testing.assert_array_equal(source.splits["train"][1][0], IMAGES[1])


def test_the_fingerprint_is_that_of_a_copy_and_not_of_another_dataset(root, tmp_path):
    def known(path):
        return open_source(str(path)).fingerprint()

    first = known(root)
    assert first["sizes"] == {"train": 3, "test": 2} and first["class_names"] == [
        "a",
        "b",
    ]
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


def test_a_size_that_the_sample_did_not_see_is_found_when_it_is_loaded(root, monkeypatch):
    write_folder(root, {"train/b/1.png": IMAGES[0][:5]})
    monkeypatch.setattr("experiments.data.source.SAMPLED", 2)
    source = open_source(str(root))
    assert source.shape == (8, 9, 3)
    message = r"pictures/train/b/1.png is 5x9x3; expected 8x9x3, the size of the others"
    with pytest.raises(ValueError, match=message):
        load(source)


def test_the_checksum_of_the_cache_changes_with_dates_names_and_labels(root):
    def checksum():
        return open_source(str(root)).splits["train"].checksum(local=True)

    found = [checksum()]
    assert checksum() == found[0]
    file = root / "train/b/2.png"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    found.append(checksum())
    file.rename(root / "train/a/2.png")
    found.append(checksum())
    write_folder(root, {"train/aa/1.png": IMAGES[0]})  # b is no longer label 1
    found.append(checksum())
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"junk", "is no image that Pillow reads"), (None, "cannot be read: .*truncated")],
)
def test_a_damaged_image_is_named(root, content, message):
    whole = encoded(IMAGES[0])
    write_folder(root, {"train/b/5.png": content or whole[: len(whole) // 2]})
    with pytest.raises(ValueError, match=f"pictures/train/b/5.png {message}"):
        load(open_source(str(root)))


@pytest.mark.parametrize(
    ("gone", "added", "message"),
    [
        ("test", ["exam/1.png"], "folders exam, train; expected train, and test"),
        ("*", [], r"pictures', with the folders \(none\); expected"),
        ("test/*/*", [], "without images in .*test; expected <class>/<image>, files"),
        ("-", ["test/B/1.png", "test/d/1.png"], "of which train has no images: B, d;"),
        ("*/b", [], "with the class a alone; expected two or more"),
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
