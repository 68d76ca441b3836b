"""A dataset: labelled images of two splits, read and decoded one by one."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from experiments.data.pictures import MODES, size_of, whole

# Looked at to find out whether all images have one size.
SAMPLED = 100

Shape = tuple[int | None, int | None, int]
Picture = PIL.Image.Image


@dataclass(frozen=True)
class Examples:
    """Labelled images of one split, by index; worker processes can have a copy."""

    # By index, images with their labels: tuples, or mappings with "image" and "label". An
    # image is an array, what is in a file, or the name of a file in `folder`.
    data: Any
    where: str  # what an error calls the split
    classes: int
    channels: int = 3  # that all are read with
    folder: Path | None = None
    files: Sequence[Path] = ()  # that hold all of the images, if any do

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image `index`, uint8 `(height, width, channels)`, and its label."""
        return self.read([index])[0]

    def read(
        self, indices: Iterable[int], use: Callable[[Picture], Any] | None = None
    ) -> list[tuple[Any, int]]:
        """Several images and labels, faster than one by one.

        If given, `use` tells what is taken of a picture, which Pillow decodes at its
        first use. If one cannot be read, a ValueError names it.
        """
        use = use or partial(whole, channels=self.channels)
        numbers, found = [int(index) for index in indices], []
        for number, record in zip(numbers, self._records(numbers), strict=True):
            try:
                picture, label = self._picture(record)
                with picture:
                    found.append((use(picture), label))
            except PIL.UnidentifiedImageError as error:
                raise ValueError(
                    f"{self.title(number)} is no image that Pillow reads"
                ) from error
            except Exception as error:
                raise ValueError(
                    f"{self.title(number)} cannot be read: {error}"
                ) from error
        return found

    def title(self, index: int) -> str:
        """What an error calls an image."""
        if self.folder is None:
            return f"image {index} of {self.where}"
        return printable(str(self.folder / self.data[index][0]))

    def checksum(self) -> str:
        """A text that changes when images are added, removed or labelled otherwise.

        It is of names and sizes and of a few images, not of all that is in the files, so
        that it is cheap.
        """
        digest = hashlib.sha256()
        if self.folder is not None:
            for path, label in self.data:
                size = (self.folder / path).stat().st_size
                digest.update(os.fsencode(f"{path} {label} {size} \n"))
            return digest.hexdigest()
        digest.update(str(len(self)).encode())
        for file in self.files:
            digest.update(repr((file.name, file.stat().st_size)).encode())
        for image, label in map(_pair, self._records(sample(len(self)))):
            content = image if isinstance(image, bytes) else np.asarray(image).tobytes()
            digest.update(repr((label, np.shape(image), content)).encode())
        return digest.hexdigest()

    def _records(self, numbers: Sequence[int]) -> Sequence[Any]:
        try:
            if hasattr(self.data, "__getitems__"):
                return self.data.__getitems__(numbers)
            return [self.data[number] for number in numbers]
        except Exception as error:
            raise ValueError(f"{self.where} cannot be read: {error}") from error

    def _picture(self, record: Any) -> tuple[Picture, int]:
        """An image, of a file not decoded yet, and its label."""
        image, label = _pair(record)
        if not 0 <= label < self.classes:
            raise ValueError(f"its label is {label}; expected 0 to {self.classes - 1}")
        if self.folder is not None:
            return PIL.Image.open(self.folder / image), label
        if isinstance(image, bytes):
            return PIL.Image.open(BytesIO(image)), label
        image = np.asarray(image)
        channels = image.shape[-1] if image.ndim == 3 else 1
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in MODES:
            raise ValueError(
                f"its image is {image.dtype}{image.shape}; expected uint8 (height, "
                "width, channels), of 1, 3 or 4 channels"
            )
        image = image.reshape(image.shape[: 2 + (channels > 1)])
        return PIL.Image.fromarray(image), label


@dataclass(frozen=True)
class Source:
    """A dataset of which hardly anything is read yet."""

    name: str  # as it was asked for
    class_names: tuple[str, ...]
    shape: Shape  # of an image; without height and width where they differ
    splits: Mapping[str, Examples]  # "train" and, to score, "test"
    version: str = ""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: len(examples) for split, examples in self.splits.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What the data is, as JSON has it: the same for a copy of it elsewhere.

        It tells datasets apart between which images were added or removed, or of which
        a class was renamed; not those of which files alone were painted over.
        """
        checksums = [self.splits[split].checksum() for split in sorted(self.splits)]
        text = repr((self.class_names, checksums)).encode()
        return {
            "version": self.version,
            "shape": list(self.shape),
            "sizes": self.sizes,
            "class_names": list(self.class_names),
            "checksum": hashlib.sha256(text).hexdigest()[:16],
        }


def common_shape(splits: Mapping[str, Examples]) -> Shape:
    """Of a sample of the images, if they all have the same size.

    The first and the last are decoded: most damage is found before a long reading.
    """
    for examples in splits.values():
        examples.read([0, len(examples) - 1])
    sizes = {
        size
        for examples in splits.values()
        for size, _ in examples.read(sample(len(examples)), size_of)
    }
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, splits["train"].channels


def sample(count: int) -> list[int]:
    """Some of that many indices, the first and the last among them."""
    return np.linspace(0, count - 1, min(SAMPLED, count)).astype(int).tolist()


def below_home(path: str | Path) -> Path:
    """A path whose `~` is the user's folder; of an unknown user it stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def printable(name: str) -> str:
    r"""A file's name in one Unicode form, and bytes that are no UTF-8 written out.

    >>> print(printable(os.fsdecode(b"caf\xe9.png")))
    caf\xe9.png
    """
    text = os.fsencode(name).decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", text)


def _pair(record: Any) -> tuple[Any, int]:
    image, label = (
        record if isinstance(record, tuple) else (record["image"], record["label"])
    )
    return image, int(label)
