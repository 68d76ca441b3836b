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
    """Images of one split: paths `class/image` in its folder, and labels."""

    folder: Path
    labelled: Sequence[tuple[str, int]]
    channels = 3  # whatever the files have

    def __len__(self) -> int:
        return len(self.labelled)

    def checksum(self, *, local: bool = False) -> str:
        """Of names, labels and sizes."""
        digest = hashlib.sha256(os.fsencode(self.folder.resolve()) if local else b"")
        for path, label in self.labelled:
            about = (self.folder / path).stat()
            date = about.st_mtime_ns if local else ""
            digest.update(os.fsencode(f"{path} {label} {about.st_size} {date}\n"))
        return digest.hexdigest()

    def records(self, indices: Sequence[int]) -> Sequence[tuple[str, int]]:
        """Paths and labels."""
        return [self.labelled[index] for index in indices]

    def picture(self, record: tuple[str, int]) -> tuple[PIL.Image.Image, int]:
        """An image."""
        path, label = record
        return PIL.Image.open(self.folder / path), label

    def title(self, index: int) -> str:
        """Names the file."""
        return printable(str(self.folder / self.labelled[index][0]))


def image_folder(name: str) -> Source:
    """The dataset in a folder, `train/<class>/<image>` and `test` or `validation` alike.

    Images may lie in folders of their class folder. What is odd and can be lived with is
    one warning.
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
    passed_over: Counter[str] = Counter()
    train, test = (_images(root / split, passed_over) for split in ("train", scored))
    for split, images in {"train": train, scored: test}.items():
        if not any(images.values()):
            raise ValueError(
                f"--dataset is {name!r}, without images in {root / split}; expected "
                "<class>/<image>, files that Pillow reads"
            )
    classes = sorted(label for label, paths in train.items() if paths)
    if unknown := {label for label, paths in test.items() if paths} - {*classes}:
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
        split: Files(
            folder,
            [(path, i) for i, c in enumerate(classes) for path in images.get(c, ())],
        )
        for split, folder, images in (
            ("train", root / "train", train),
            ("test", root / scored, test),
        )
    }
    return Source(name, tuple(classes), common_shape(splits.values()), splits)


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
        label = printable(inside.parts[0]) if inside.name else ""
        if label:
            images.setdefault(label, [])
        for file in files:
            ending = Path(file).suffix.lower()
            if file.startswith("."):
                continue
            if ending not in suffixes():
                passed_over[ending or file] += 1
            elif not label:
                passed_over["outside of class folders"] += 1
            else:
                images[label].append(str(inside / file))
    return {label: sorted(paths) for label, paths in images.items()}


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
