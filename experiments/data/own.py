"""A dataset of one's own: what a function gives, arrays or anything indexed.

`--dataset package.module:function` names a function without arguments that returns a
mapping. Its `"train"` and `"test"` are each a pair `(images, labels)`, uint8 arrays
`(n, height, width, channels)` and whole numbers `(n,)`; or a sequence, read as it is
needed, of mappings `{"image": (height, width, channels), "label": number}`, as
`tfds.data_source`, Grain's sources and Hugging Face's datasets are. Its `"class_names"`
may be left out with pairs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from experiments.data.pictures import MODES
from experiments.data.source import Examples, Source, common_shape, sample
from experiments.own_code import called, named


@dataclass(frozen=True)
class Given(Examples):
    """Images of one split.

    Attributes:
        data: of mappings with an image and a label.
        classes: number of them.
        where: what an error calls the split.
        channels: of every image.
    """

    data: Any
    classes: int
    where: str
    channels: int
    in_memory = True

    def __len__(self) -> int:
        return len(self.data)

    def checksum(self, *, local: bool = False) -> str:
        """Of a sample of the images."""
        digest = hashlib.sha256(str(len(self)).encode())
        for image, label in self.__getitems__(sample(len(self))):
            digest.update(repr((image.shape, label)).encode() + image.tobytes())
        return digest.hexdigest()

    def records(self, indices: Sequence[int]) -> Sequence[Any]:
        """Examples as they were given."""
        return [self.data[int(index)] for index in indices]

    def picture(self, record: Any) -> tuple[PIL.Image.Image, int]:
        """An image of an array."""
        image, label = pixels(record["image"]), int(record["label"])
        if label >= self.classes:
            raise ValueError(f"its label is {label}; expected 0 to {self.classes - 1}")
        return PIL.Image.fromarray(
            image[..., 0] if image.shape[-1] == 1 else image
        ), label

    def title(self, index: int) -> str:
        """Names the dataset, the split and the image."""
        return f"image {index} of {self.where}"


@dataclass(frozen=True)
class Pair:
    """Arrays of images and labels, as a sequence of examples."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index]}


def own_dataset(name: str) -> Source:
    """What the function of that name gives.

    Raises:
        ValueError: there is no such function, it fails, or gives something else.
    """
    given = called(named("--dataset", name), "--dataset", name)
    return from_splits(name, given, f"--dataset {name}")


def from_splits(name: str, given: Any, where: str) -> Source:
    """A source of what such a function gives; `where` is what errors call it."""
    if not isinstance(given, Mapping) or not {"train", "test"} <= given.keys():
        found = list(given) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"{where} gives {found}; expected a mapping: train, test")
    splits = {
        split: _indexed(given[split], f"{split} of {where}")
        for split in ("train", "test")
    }
    labels = [each.labels.max() for each in splits.values() if isinstance(each, Pair)]
    counted = range(int(max(labels)) + 1) if len(labels) == 2 else ()
    class_names = tuple(map(str, given.get("class_names", counted)))
    if len(class_names) < 2:
        raise ValueError(
            f"{where} has the class_names {class_names}; expected two or more"
        )
    try:
        channels = pixels(splits["train"][0]["image"]).shape[-1]
    except Exception as error:
        raise ValueError(f"train of {where} cannot be read: {error}") from error
    parts = {
        split: Given(data, len(class_names), f"{split} of {where}", channels)
        for split, data in splits.items()
    }
    for part in parts.values():
        part.__getitems__([0, len(part) - 1])
    return Source(name, class_names, common_shape(list(parts.values())), parts)


def _indexed(data: Any, where: str) -> Any:
    """A split's examples, by index."""
    if isinstance(data, tuple):
        data = Pair(*map(np.asarray, data))
        if len(data.images) != len(data) or data.labels.dtype.kind not in "iu":
            raise ValueError(
                f"{where} has {len(data.images)} images, and labels {data.labels.dtype}"
                f"{data.labels.shape}; expected as many whole numbers"
            )
    if not len(data):
        raise ValueError(f"{where} has no images; expected some")
    return data


def pixels(image: Any) -> np.ndarray:
    """An image, checked: uint8 `(height, width, channels)`."""
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in MODES:
        raise ValueError(
            f"its image is {image.dtype}{image.shape}; expected uint8 (height, width, "
            "channels), of 1, 3 or 4 channels"
        )
    return image
