"""Images of one's own, in the layout of `tfds.ImageFolder`.

`tfds.ImageFolder` itself lists and decodes files by TensorFlow; here Pillow reads them.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import PIL.Image

from experiments.data.source import Examples, Source, below_home, common_shape, printable

SCORED = ("test", "validation", "val")
# Formats that Pillow has a name for, and cannot read.
UNREADABLE = {"BUFR", "GRIB", "HDF5", "MPEG"}
NAMED = 5

logger = logging.getLogger(__name__)


def image_folder(name: str) -> Source:
    """The dataset in a folder, `train/<class>/<image>` and `test` or `validation` alike.

    Images may lie in folders of their class folder. What is odd and can be lived with is
    one warning.
    """
    root = below_home(name)
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
    folders = {"train": root / "train", "test": root / scored}
    splits = {split: _images(at, passed_over) for split, at in folders.items()}
    for split, images in splits.items():
        if not any(images.values()):
            raise ValueError(
                f"--dataset is {name!r}, without images in {folders[split]}; expected "
                "<class>/<image>, files that Pillow reads"
            )
    train, test = ({c for c, paths in x.items() if paths} for x in splits.values())
    if len(train) < 2:
        raise ValueError(
            f"--dataset is {name!r}, with images to train on of the classes "
            f"{_some(train)}; expected two or more"
        )
    if test - train:
        raise ValueError(
            f"--dataset is {name!r}, with images to score of the classes "
            f"{_some(test - train)}, of which there are none to train on; expected some"
        )
    empty = {*splits["train"], *splits["test"]} - train
    odd = {
        "files that are passed over": [f"{n} {kind}" for kind, n in passed_over.items()],
        "class folders without images": empty,
        "classes without images to score": train - test,
    }
    if told := [f"{what}: {_some(names)}" for what, names in odd.items() if names]:
        logger.warning("warning: --dataset %s has %s", printable(name), "; ".join(told))
    classes = tuple(sorted(train))
    examples = {
        split: Examples(
            [(path, i) for i, c in enumerate(classes) for path in images.get(c, ())],
            f"{split} of {name}",
            len(classes),
            folder=folders[split],
        )
        for split, images in splits.items()
    }
    return Source(name, classes, common_shape(examples), examples)


@cache
def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads, lower case.

    >>> {".jpg", ".tif", ".webp"} <= suffixes(), ".h5" in suffixes(), ".pdf" in suffixes()
    (True, False, False)
    """
    endings = PIL.Image.registered_extensions().items()
    readable = PIL.Image.OPEN.keys() - UNREADABLE
    return frozenset(ending for ending, kind in endings if kind in readable)


def _images(folder: Path, passed_over: Counter[str]) -> dict[str, list[str]]:
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


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more]) or "(none)"
