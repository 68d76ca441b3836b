"""Examples that something else holds, by index: arrays, TFDS, or a dataset of one's."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from experiments.data.pictures import MODES
from experiments.data.source import Examples, sample


@dataclass(frozen=True)
class Indexed(Examples):
    """Images of one split."""

    data: Any  # mappings with an "image", an array or a file's bytes, and a "label"
    classes: int
    where: str  # what an error calls the split
    channels: int
    files: Sequence[Path] = ()  # that the images are in, if they are in any

    @property
    def in_memory(self) -> bool:
        """Whether they are in no files."""
        return not self.files

    def __len__(self) -> int:
        return len(self.data)

    def checksum(self, *, local: bool = False) -> str:
        """Of a sample of the images, and the names and sizes of the files."""
        digest = hashlib.sha256(str(len(self)).encode())
        for file in self.files:
            about = file.stat()
            known = (str(file), about.st_mtime_ns) if local else file.name
            digest.update(repr((known, about.st_size)).encode())
        for record in self.records(sample(len(self))):
            image, label = record["image"], int(record["label"])
            content = image if isinstance(image, bytes) else np.asarray(image).tobytes()
            digest.update(repr((label, np.shape(image), content)).encode())
        return digest.hexdigest()

    def records(self, indices: Sequence[int]) -> Sequence[Any]:
        """Examples as they are held."""
        numbers = [int(index) for index in indices]
        try:
            if hasattr(self.data, "__getitems__"):
                return self.data.__getitems__(numbers)
            return [self.data[number] for number in numbers]
        except Exception as error:
            raise ValueError(f"{self.where} cannot be read: {error}") from error

    def picture(self, record: Any) -> tuple[PIL.Image.Image, int]:
        """An image, of a file not decoded yet."""
        image, label = record["image"], int(record["label"])
        if label >= self.classes:
            raise ValueError(f"its label is {label}; expected 0 to {self.classes - 1}")
        if isinstance(image, bytes):
            if not image:  # as of a file cut short
                raise ValueError("its record is empty")
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

    def title(self, index: int) -> str:
        """Names the dataset, the split and the image."""
        return f"image {index} of {self.where}"
