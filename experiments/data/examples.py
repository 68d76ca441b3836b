"""Labelled images of a split, read and decoded one by one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.Image

# Pillow's name of a kind of image, by its number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Examples(ABC):
    """Images of one split and their labels, by index; worker processes can have a copy.

    `examples[i]` is image i, uint8 `(height, width, channels)`, and its label.

    Attributes:
        channels: of every image, whatever its file has.
    """

    channels: int

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def version(self) -> str | None:
        """A text that changes when the images do; None if they are in memory already."""

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
                examples.append((as_array(picture, self.channels), label))
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


def as_array(picture: PIL.Image.Image, channels: int) -> np.ndarray:
    """An image, decoded: uint8 `(height, width, channels)`."""
    return np.atleast_3d(np.asarray(picture.convert(MODES[channels])))
