"""Datasets that TFDS has prepared, read without TensorFlow.

For that the files have to be in the `array_record` format.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from experiments.data.examples import MODES, Examples
from experiments.data.source import Source
from experiments.data.tfds_builder import find_builder

SCORED = ("test", "validation")

logging.getLogger("absl").setLevel(logging.ERROR)  # which TFDS advises through


@dataclass(frozen=True)
class Prepared(Examples):
    """Images of one split.

    Attributes:
        data: what TFDS calls a data source, with the images still encoded.
        files: that the images are in.
        where: what an error calls the split.
        channels: of every image.
    """

    data: Any
    files: Sequence[Path]
    where: str
    channels: int

    def __len__(self) -> int:
        return len(self.data)

    def version(self) -> str:
        """Names, which have the version of the dataset in them, sizes and dates."""
        about = [(file, file.stat()) for file in self.files]
        return repr([(str(file), x.st_size, x.st_mtime_ns) for file, x in about])

    def records(self, indices: Sequence[int]) -> Sequence[Any]:
        """Examples as TFDS has them."""
        try:
            return self.data.__getitems__([int(index) for index in indices])
        except Exception as error:
            raise ValueError(f"{self.where} cannot be read: {error}") from error

    def picture(self, record: Any) -> tuple[PIL.Image.Image, int]:
        """An image, which TFDS has not decoded."""
        if not record["image"]:  # as of a file cut short
            raise ValueError("its record is empty")
        return PIL.Image.open(BytesIO(record["image"])), int(record["label"])

    def title(self, index: int) -> str:
        """Names the dataset, the split and the image."""
        return f"image {index} of {self.where}"


def prepared(name: str, data_dir: Path | None, *, download: bool) -> Source:
    """A TFDS dataset with the features `image` and `label`.

    Scored are the images of `test`, or of `validation` if those of `test` have no labels.

    Raises:
        ValueError: it is unknown, not prepared, damaged or no image classification.
    """
    builder = find_builder(name, data_dir, download=download)
    where = f"dataset {name!r} in {builder.data_path}"
    features, splits = builder.info.features, builder.info.splits
    _check_features(features, where)
    shape, classes = features["image"].shape, features["label"].num_classes
    scored = [split for split in SCORED if split in splits]
    if "train" not in splits or not scored:
        raise ValueError(
            f"{where} has the splits {', '.join(splits)}; expected train, and test or "
            "validation"
        )
    formats = builder.info.available_file_formats()
    if formats.isdisjoint(tfds.core.FileFormat.with_random_access()):
        raise ValueError(
            f"{where} is in the format {', '.join(f.value for f in formats)}; expected "
            "array_record, which is read without TensorFlow"
        )

    def examples(split: str) -> Prepared:
        return _examples(builder, split, f"{split} of {where}", shape[-1])

    test = examples(scored[0])
    if len(scored) > 1 and test.records([0])[0]["label"] < 0:  # as of ImageNet
        test = examples(scored[1])
    parts = {"train": examples("train"), "test": test}
    for part in parts.values():  # a damaged file is found before a long reading
        part.__getitems__([0, len(part) - 1])
    return Source(name, classes, shape, parts)


def _check_features(features: Any, where: str) -> None:
    """Raises a ValueError if these are not those of images to classify."""
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for feature, kind in kinds.items():
        if not isinstance(dict(features).get(feature), kind):
            raise ValueError(
                f"{where} is no image classification: expected a feature {feature!r} "
                f"that is a tfds.features.{kind.__name__}; it has {', '.join(features)}"
            )
    image = features["image"]
    if (
        len(image.shape) != 3
        or image.shape[-1] not in MODES
        or image.np_dtype != np.uint8
    ):
        raise ValueError(
            f"{where} has images of shape {image.shape}, {np.dtype(image.np_dtype)}; "
            f"expected (height, width, channels), uint8, of 1, 3 or 4 channels"
        )


def _examples(builder: Any, split: str, where: str, channels: int) -> Prepared:
    skipped = {
        name: tfds.decode.SkipDecoding()
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    try:
        data = builder.as_data_source(split=split, decoders=skipped)
    except Exception as error:
        raise ValueError(f"{where} cannot be read: {error}") from error
    files = [Path(file) for file in builder.info.splits[split].filepaths]
    return Prepared(data, files, where, channels)
