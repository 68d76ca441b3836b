"""Images of one's own, in the layout of `tfds.ImageFolder`.

`tfds.ImageFolder` itself lists and decodes files by TensorFlow; here Pillow reads them.
"""

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import PIL.Image

from experiments.data.source import Examples, Source, common_shape

SCORED = ("test", "validation", "val")
# Formats that Pillow has a name for, and cannot read.
UNREADABLE = {"BUFR", "GRIB", "HDF5", "MPEG"}
NAMED = 5

# Paths of the images of each class.
Images = Mapping[str, Sequence[str]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files(Examples):
    """Images of one split, as RGB whatever the files have.

    Attributes:
        folder: of the split.
        paths: of the files, in that folder, `class/image`.
        labels: of the files.
    """

    folder: Path
    paths: Sequence[str]
    labels: Sequence[int]
    channels = 3

    def __len__(self) -> int:
        return len(self.paths)

    def checksum(self, *, local: bool = False) -> str:
        """Of names, labels and sizes."""
        digest = hashlib.sha256(os.fsencode(self.folder.resolve()) if local else b"")
        for path, label in zip(self.paths, self.labels, strict=True):
            about = (self.folder / path).stat()
            date = about.st_mtime_ns if local else ""
            digest.update(os.fsencode(f"{path} {label} {about.st_size} {date}\n"))
        return digest.hexdigest()

    def records(self, indices: Sequence[int]) -> Sequence[tuple[Path, int]]:
        """Files and labels."""
        return [(self.folder / self.paths[i], self.labels[i]) for i in indices]

    def picture(self, record: tuple[Path, int]) -> tuple[PIL.Image.Image, int]:
        """An image."""
        path, label = record
        return PIL.Image.open(path), label

    def title(self, index: int) -> str:
        """Names the file."""
        return printable(str(self.folder / self.paths[index]))


def image_folder(name: str) -> Source:
    """The dataset in a folder, `train/<class>/<image>` and `test` or `validation` alike.

    Images may lie in folders of their class folder. What is odd and can be lived with is
    one warning.

    Raises:
        ValueError: there is no such folder, it has another layout, or classes that cannot
            be learned.
    """
    root = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's fails without a user
    if not root.is_dir():
        raise ValueError(f"--dataset is {name!r}; there is no such folder")
    found = sorted(each.name for each in root.iterdir() if each.is_dir())
    scored = next((split for split in SCORED if split in found), None)
    if "train" not in found or scored is None:
        raise ValueError(
            f"--dataset is {name!r}, with the folders {', '.join(found) or '(none)'}; "
            "expected train, and test or validation, with a folder of images for each "
            "class in them"
        )
    folders = {"train": root / "train", "test": root / scored}
    passed_over: Counter[str] = Counter()
    train, test = (_images(folder, passed_over) for folder in folders.values())
    for folder, images in zip(folders.values(), (train, test), strict=True):
        if not any(images.values()):
            raise ValueError(
                f"--dataset is {name!r}, without images in {folder}; expected "
                "<class>/<image>, files that Pillow reads"
            )
    classes = sorted(label for label, paths in train.items() if paths)
    if unknown := sorted({label for label, paths in test.items() if paths} - {*classes}):
        raise ValueError(
            f"--dataset is {name!r}, with classes in {scored} of which train has no "
            f"images: {_some(unknown)}; expected images to learn them from"
        )
    if len(classes) < 2:
        raise ValueError(
            f"--dataset is {name!r}, with the class {classes[0]} alone; expected two or "
            "more"
        )
    passed = [f"{count} {kind}" for kind, count in passed_over.items()]
    if told := list(_oddities(classes, train, test, passed)):
        logger.warning("warning: --dataset %s has %s", printable(name), "; ".join(told))
    splits = {
        "train": _files(folders["train"], classes, train),
        "test": _files(folders["test"], classes, test),
    }
    return Source(name, tuple(classes), common_shape(list(splits.values())), splits)


def printable(name: str) -> str:
    r"""A file's name in one Unicode form, and bytes that are no UTF-8 written out.

    >>> print(printable(os.fsdecode(b"caf\xe9.png")))
    caf\xe9.png
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", text)


@cache
def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads, lower case.

    >>> {".jpg", ".tif", ".webp"} <= suffixes(), ".h5" in suffixes(), ".pdf" in suffixes()
    (True, False, False)
    """
    endings = PIL.Image.registered_extensions().items()
    readable = PIL.Image.OPEN.keys() - UNREADABLE
    return frozenset(ending for ending, kind in endings if kind in readable)


def _images(folder: Path, passed_over: Counter[str]) -> Images:
    """Paths of the images of each class; counts what is passed over."""

    def fail(error: OSError) -> None:
        raise error

    images: dict[str, list[str]] = {}
    for at, below, files in os.walk(folder, onerror=fail, followlinks=True):
        below[:] = [each for each in below if not each.startswith(".")]
        inside = Path(at).relative_to(folder)
        label = (
            unicodedata.normalize("NFC", printable(inside.parts[0]))
            if inside.name
            else ""
        )
        for file in files:
            ending = Path(file).suffix.lower()
            if file.startswith("."):
                continue
            if ending not in suffixes():
                passed_over[ending or file] += 1
            elif not label:
                passed_over["outside of class folders"] += 1
            else:
                images.setdefault(label, []).append(str(inside / file))
        if label:
            images.setdefault(label, [])
    return {label: sorted(paths) for label, paths in images.items()}


def _files(folder: Path, classes: Sequence[str], images: Images) -> Files:
    labelled = [(path, i) for i, c in enumerate(classes) for path in images.get(c, ())]
    return Files(folder, *zip(*labelled, strict=True))


def _oddities(
    classes: Sequence[str], train: Images, test: Images, passed_over: Sequence[str]
) -> Iterator[str]:
    """What may not be as it was meant."""
    if passed_over:
        yield f"what is passed over: {_some(passed_over)}"
    if empty := {*train, *test} - {*classes}:
        yield f"{len(empty)} class folders without images: {_some(empty)}"
    if unscored := [label for label in classes if not test.get(label)]:
        yield f"{len(unscored)} classes without images to score: {_some(unscored)}"
    cases = Counter(label.casefold() for label in classes)
    if alike := [label for label in classes if cases[label.casefold()] > 1]:
        yield f"classes whose names differ in case alone: {_some(alike)}"
    for label in classes:
        paths = [*train[label], *test.get(label, ())]
        if len({path.partition("/")[0] for path in paths}) > 1:
            yield f"names of one class that differ in their Unicode form: {label}"


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
