"""A dataset: labelled images of two splits, read and decoded one by one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
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

        It is of names and sizes, not of all that is in the files, so that it is cheap; if
        `local`, of the files' folder and dates too, which a copy does not share.
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
    def open(
        self, index: int, record: Any = None
    ) -> Iterator[tuple[PIL.Image.Image, int]]:
        """An image, which Pillow decodes at its first use, and its label.

        If it cannot be read, a ValueError says so, also where the `with` block finds it.
        """
        if record is None:
            (record,) = self.records([index])
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

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """Several images and labels, faster than one by one."""
        examples = []
        for index, record in zip(indices, self.records(indices), strict=True):
            with self.open(index, record) as (picture, label):
                examples.append((whole(picture, self.channels), label))
        return examples


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


def common_shape(splits: Collection[Examples]) -> Shape:
    """Of a sample of the images, if they all have the same size."""
    sizes, channels = set(), 0
    for examples in splits:
        channels = examples.channels
        for index in sample(len(examples)):
            with examples.open(index) as (picture, _):
                sizes.add(size_of(picture))
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, channels


def sample(count: int) -> list[int]:
    """Some of that many indices, the first and the last among them."""
    return np.linspace(0, count - 1, min(SAMPLED, count)).astype(int).tolist()
