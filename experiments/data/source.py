"""A dataset: labelled images of two splits, read and decoded one by one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from experiments.data.pictures import size_of, whole

# Looked at to find out whether all images have one size.
SAMPLED = 100

Shape = tuple[int | None, int | None, int]


class Examples(ABC):
    """Images of one split and their labels, by index; worker processes can have a copy.

    `examples[i]` is image i, uint8 `(height, width, channels)`, and its label.

    Attributes:
        channels: of every image, whatever its file has.
    """

    channels: int

    @property
    def in_memory(self) -> bool:
        """Whether the images are there already, so that a cache gains nothing."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def checksum(self, *, local: bool = False) -> str:
        """A text that changes when images are added, removed or labelled otherwise.

        It is of names and sizes, not of all that is in the files, so that it is cheap.

        Args:
            local: whether it is of the files' folder and dates too, which a copy of the
                dataset does not share.
        """

    @abstractmethod
    def records(self, indices: Sequence[int]) -> Sequence[Any]:
        """What `picture` takes, of several images at once."""

    @abstractmethod
    def picture(self, record: Any) -> tuple[PIL.Image.Image, int]:
        """An image, not decoded yet, and its label, negative if it has none."""

    @abstractmethod
    def title(self, index: int) -> str:
        """What an error calls an image."""

    @contextmanager
    def open(self, index: int) -> Iterator[tuple[PIL.Image.Image, int]]:
        """An image, which Pillow decodes at its first use, and its label.

        Raises:
            ValueError: the image cannot be read; also if the `with` block finds that.
        """
        (record,) = self.records([index])
        with self._open(index, record) as example:
            yield example

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """Several images and labels, faster than one by one."""
        examples = []
        for index, record in zip(indices, self.records(indices), strict=True):
            with self._open(index, record) as (picture, label):
                examples.append((whole(picture, self.channels), label))
        return examples

    @contextmanager
    def _open(self, index: int, record: Any) -> Iterator[tuple[PIL.Image.Image, int]]:
        try:
            picture, label = self.picture(record)
            if label < 0:
                raise ValueError("it has no label")
            with picture:
                yield picture, label
        except PIL.UnidentifiedImageError as error:
            raise ValueError(
                f"{self.title(index)} is no image that Pillow reads"
            ) from error
        except Exception as error:
            raise ValueError(f"{self.title(index)} cannot be read: {error}") from error


@dataclass(frozen=True)
class Source:
    """A dataset of which hardly anything is read yet.

    Attributes:
        name: as it was asked for.
        class_names: the name of each label, label 0 first.
        shape: `(height, width, channels)` of the images, with None for the height and
            the width where they differ.
        splits: the images to train on, `"train"`, and to score, `"test"`.
        version: of the dataset, where it has one.
    """

    name: str
    class_names: tuple[str, ...]
    shape: Shape
    splits: Mapping[str, Examples]
    version: str = ""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: len(examples) for split, examples in self.splits.items()}

    def examples(self, split: str) -> Examples:
        """The images of `"train"` or `"test"`."""
        return self.splits[split]

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


def common_shape(splits: Sequence[Examples]) -> Shape:
    """Of a sample of the images, if they all have the same size."""
    sizes = set()
    for examples in splits:
        for index in sample(len(examples)):
            with examples.open(index) as (picture, _):
                sizes.add(size_of(picture))
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, splits[0].channels


def sample(count: int) -> list[int]:
    """Some of that many indices, the first and the last among them."""
    return np.linspace(0, count - 1, min(SAMPLED, count)).astype(int).tolist()
