"""Images of one's own, in the layout of `tfds.ImageFolder`.

`tfds.ImageFolder` itself lists and decodes files by TensorFlow; here Pillow reads them.
"""

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import PIL.Image

from experiments.data.source import Examples, Source, common_shape

SCORED = ("test", "validation", "val")
# Formats that Pillow has a name for, and cannot read.
UNREADABLE = {"BUFR", "GRIB", "HDF5", "MPEG"}
NAMED = 5

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


@dataclass(frozen=True)
class Listing:
    """What is in the folder of a split.

    Attributes:
        images: paths of the images of each class.
        folders: names of the class folders of each class: several where they differ in
            their Unicode form alone.
        strays: number of images that are in no class folder.
        others: numbers of files that are no images, by their ending.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    strays: int = 0
    others: Counter[str] = field(default_factory=Counter)


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
    found = _folders(root)
    scored = next((split for split in SCORED if split in found), None)
    if "train" not in found or scored is None:
        raise ValueError(
            f"--dataset is {name!r}, with the folders {', '.join(found) or '(none)'}; "
            "expected train, and test or validation, with a folder of images for each "
            "class in them"
        )
    folders = {"train": root / "train", "test": root / scored}
    train, test = listings = [_listed(folder) for folder in folders.values()]
    for folder, listing in zip(folders.values(), listings, strict=True):
        if not any(listing.images.values()):
            raise ValueError(
                f"--dataset is {name!r}, without images in {folder}; expected "
                "<class>/<image>, files that Pillow reads"
            )
    classes = sorted(label for label, paths in train.images.items() if paths)
    unknown = [label for label, paths in test.images.items() if paths]
    unknown = sorted(set(unknown) - set(classes))
    if unknown:
        raise ValueError(
            f"--dataset is {name!r}, with classes in {scored} of which train has no "
            f"images: {_some(unknown)}; expected images to learn them from"
        )
    if len(classes) < 2:
        raise ValueError(
            f"--dataset is {name!r}, with the class {classes[0]} alone; expected two or "
            "more"
        )
    if odd := list(_oddities(classes, train, test)):
        logger.warning("warning: --dataset %s has %s", printable(name), "; ".join(odd))
    splits = {
        split: _files(folder, classes, listing)
        for (split, folder), listing in zip(folders.items(), listings, strict=True)
    }
    return Source(name, tuple(classes), common_shape(list(splits.values())), splits)


def printable(name: str) -> str:
    r"""A file's name, bytes that are no UTF-8 written out.

    >>> print(printable(os.fsdecode(b"caf\xe9.png")))
    caf\xe9.png
    """
    return os.fsencode(name).decode(errors="backslashreplace")


@cache
def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads, lower case.

    >>> {".jpg", ".tif", ".webp"} <= suffixes(), ".h5" in suffixes(), ".pdf" in suffixes()
    (True, False, False)
    """
    endings = PIL.Image.registered_extensions().items()
    readable = PIL.Image.OPEN.keys() - UNREADABLE
    return frozenset(ending for ending, kind in endings if kind in readable)


def _folders(path: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _listed(folder: Path) -> Listing:
    listing = Listing(strays=len(list(_images(folder, "", Counter(), deep=False))))
    for name in _folders(folder):
        label = unicodedata.normalize("NFC", printable(name))
        listing.folders.setdefault(label, []).append(name)
        images = sorted(_images(folder, name, listing.others))
        listing.images.setdefault(label, []).extend(images)
    return listing


def _images(
    folder: Path, name: str, others: Counter[str], deep: bool = True
) -> Iterable[str]:
    """Paths in `folder` of the images in `folder / name`, and what is below it."""

    def fail(error: OSError) -> None:
        raise error

    for at, below, files in os.walk(folder / name, onerror=fail, followlinks=True):
        below[:] = [each for each in below if deep and not each.startswith(".")]
        for file in files:
            path, ending = Path(at, file), Path(file).suffix.lower()
            if file.startswith("."):
                continue
            if ending in suffixes():
                yield str(path.relative_to(folder))
            else:
                others[ending or file] += 1


def _oddities(classes: Sequence[str], train: Listing, test: Listing) -> Iterable[str]:
    """What may not be as it was meant, with numbers."""
    others = train.others + test.others
    if others:
        kinds = (f"{count} {kind}" for kind, count in others.most_common())
        yield f"{others.total()} files that are no images ({_some(kinds)}), passed over"
    if strays := train.strays + test.strays:
        yield f"{strays} images outside of class folders, passed over"
    folders = train.folders.keys() | test.folders.keys()
    if empty := sorted(folders - set(classes)):
        yield f"{len(empty)} class folders without images, passed over: {_some(empty)}"
    if unscored := [label for label in classes if not test.images.get(label)]:
        yield f"{len(unscored)} classes without images to score: {_some(unscored)}"
    forms = [{*train.folders.get(c, ()), *test.folders.get(c, ())} for c in classes]
    if one := [c for c, names in zip(classes, forms, strict=True) if len(names) > 1]:
        yield f"names that differ in Unicode form alone, read as one class: {_some(one)}"
    cases = Counter(label.casefold() for label in classes)
    if alike := [label for label in classes if cases[label.casefold()] > 1]:
        yield f"classes whose names differ in case alone: {_some(alike)}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _files(folder: Path, classes: Sequence[str], listing: Listing) -> Files:
    paths = [
        (path, label)
        for label, name in enumerate(classes)
        for path in listing.images.get(name, ())
    ]
    return Files(folder, *zip(*paths, strict=True))
