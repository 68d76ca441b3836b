"""Images of one's own, in the layout of `tfds.ImageFolder`.

`tfds.ImageFolder` itself lists and decodes files by TensorFlow; here Pillow reads them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from experiments.data.examples import Examples
from experiments.data.source import Source

SUFFIXES = (".jpg", ".jpeg", ".png")
SCORED = ("test", "validation", "val")
# Looked at to find out whether all images have one size.
SAMPLED = 100


@dataclass(frozen=True)
class Files(Examples):
    """Images of one split, as RGB whatever the files have.

    Attributes:
        folder: of the split.
        paths: of the files, in that folder, `label/image`.
        labels: of the files.
    """

    folder: Path
    paths: Sequence[str]
    labels: Sequence[int]
    channels = 3

    def __len__(self) -> int:
        return len(self.paths)

    def version(self) -> str:
        """Names, labels, sizes and dates of all files."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode())
        for path, label in zip(self.paths, self.labels, strict=True):
            about = (self.folder / path).stat()
            digest.update(
                f"{path} {label} {about.st_size} {about.st_mtime_ns}\n".encode()
            )
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
        return str(self.folder / self.paths[index])


def image_folder(name: str) -> Source:
    """The dataset in a folder, `train/<label>/<image>` and `test` or `validation` alike.

    Raises:
        ValueError: there is no such folder, or it has another layout.
    """
    root = Path(name).expanduser()
    if not root.is_dir():
        raise ValueError(f"--dataset is {name!r}; there is no such folder")
    folders = _folders(root)
    scored = next((split for split in SCORED if split in folders), None)
    if "train" not in folders or scored is None:
        raise ValueError(
            f"--dataset is {name!r}, with the folders {', '.join(folders) or '(none)'}; "
            "expected train, and test or validation, with a folder of images for each "
            "label in them"
        )
    names = {"train": "train", "test": scored}
    labels = sorted(
        {label for split in names.values() for label in _folders(root / split)}
    )
    splits = {
        split: _files(root / folder, labels, name) for split, folder in names.items()
    }
    return Source(name, len(labels), _shape(list(splits.values())), splits)


def _folders(path: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _files(folder: Path, labels: Sequence[str], name: str) -> Files:
    paths = [
        (f"{label}/{file.name}", number)
        for number, label in enumerate(labels)
        if (folder / label).is_dir()
        for file in sorted((folder / label).iterdir())
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    if not paths:
        raise ValueError(
            f"--dataset is {name!r}, without images in {folder}; expected "
            f"<label>/<image>, files with the endings {', '.join(SUFFIXES)}"
        )
    return Files(folder, *zip(*paths, strict=True))


def _shape(splits: Sequence[Files]) -> tuple[int | None, int | None, int]:
    """The size of a sample of the images, if they all have the same."""
    sizes = set()
    for files in splits:
        count = len(files)
        for index in np.linspace(0, count - 1, min(SAMPLED, count)).astype(int):
            with files.open(index) as (picture, _):
                sizes.add(picture.size)
    ((width, height),) = sizes if len(sizes) == 1 else [(None, None)]
    return height, width, 3
