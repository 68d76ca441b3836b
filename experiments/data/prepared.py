"""Datasets that TFDS has prepared, read without TensorFlow.

For that the files have to be in the `array_record` format.
"""

import contextlib
import difflib
import importlib.util
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from experiments.data.source import Examples, Source, below_home, common_shape

SCORED = ("test", "validation")
KINDS = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
DOWNLOAD_HOST = "https://storage.googleapis.com"

logging.getLogger("absl").setLevel(logging.ERROR)  # which TFDS advises through


def prepared(name: str, data_dir: Path | None, *, download: bool) -> Source:
    """A TFDS dataset with the features `image` and `label`.

    Its name is TFDS's: `name`, `name/config`, `name:version`. It is in `data_dir`, else
    `TFDS_DATA_DIR`, else `~/tensorflow_datasets`, or TFDS may `download` it there.
    Scored are the images of `test`, or of `validation` if those of `test` have no labels.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = below_home(data_dir or default)
    builder = _builder(name, folder, download)
    where = f"dataset {name!r} in {builder.data_path}"
    features, splits = builder.info.features, builder.info.splits
    for feature, kind in KINDS.items():
        if not isinstance(dict(features).get(feature), kind):
            raise ValueError(
                f"{where} is no image classification: expected a feature {feature!r} "
                f"that is a tfds.features.{kind.__name__}; it has {', '.join(features)}"
            )
    if features["image"].np_dtype == np.float32:  # kept as PNGs of the floats' bits
        raise ValueError(f"{where} has images of float32; expected whole numbers")
    scored = [split for split in SCORED if split in splits]
    if "train" not in splits or not scored:
        raise ValueError(
            f"{where} has the splits {', '.join(splits)}; expected train, and test or "
            "validation"
        )
    shape, class_names = features["image"].shape, tuple(features["label"].names)
    encoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }

    def examples(split: str) -> Examples:
        title = f"{split} of {where}"
        try:
            data = builder.as_data_source(split=split, decoders=encoded)
        except Exception as error:
            raise ValueError(f"{title} cannot be read: {error}") from error
        files = [Path(file) for file in splits[split].filepaths]
        return Examples(data, title, len(class_names), shape[-1], files=files)

    test = examples(scored[0])
    if len(scored) > 1 and test.data[0]["label"] < 0:  # as of ImageNet
        test = examples(scored[1])
    parts = {"train": examples("train"), "test": test}
    common_shape(parts)  # a damaged file is found before a long reading
    return Source(name, class_names, shape, parts, str(builder.info.version))


def _builder(name: str, folder: Path, download: bool) -> Any:
    """The `tfds.core.DatasetBuilder` of a prepared dataset."""
    dataset = name.partition(":")[0].partition("/")[0]
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except Exception as error:
        missing = isinstance(error, tfds.core.registered.DatasetNotFoundError)
        if not missing and dataset.isidentifier():  # others are no name of a dataset
            raise ValueError(
                f"dataset {name!r} in {folder} cannot be opened: {error}"
            ) from error
        if not download:
            raise ValueError(_not_found(name, dataset, folder)) from error
    return _downloaded(name, folder)


def _not_found(name: str, dataset: str, folder: Path) -> str:
    """What is wrong: that nobody has prepared the dataset, or its name."""
    # A version stands below its name, or below a config that does.
    found = [*folder.glob("*/*/features.json"), *folder.glob("*/*/*/features.json")]
    there = sorted(str(file.parent.relative_to(folder)) for file in found)
    holds = f"{folder} holds {', '.join(there) or 'no prepared dataset'}"
    known = tfds.list_builders(with_community_datasets=False)
    if dataset in known or any(each.startswith(f"{dataset}/") for each in there):
        return (
            f"dataset {name!r} is not prepared: {holds}; expected {dataset}/<version> "
            "with dataset_info.json and features.json; name the folder of prepared "
            "datasets with --data-dir or TFDS_DATA_DIR, or let --download prepare it, "
            "which needs a network and TensorFlow (pip install tensorflow)"
        )
    close = difflib.get_close_matches(dataset, [*known, "digits"], n=5)
    return (
        f"--dataset is {name!r}; expected digits, a folder of images, a "
        f"package.module:function, or a dataset that TFDS knows, such as "
        f"{', '.join(close or ['cifar10', 'mnist'])}; {holds}"
    )


def _downloaded(name: str, folder: Path) -> Any:
    """Has TFDS prepare a dataset, once it is likely that it can."""
    try:
        if importlib.util.find_spec("tensorflow") is None:
            raise ValueError("TFDS needs TensorFlow for that: pip install tensorflow")
        # TFDS itself would go on trying for minutes; an HTTP error is an answer.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(DOWNLOAD_HOST, timeout=5).close()
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"--download: {name!r} cannot be prepared in {folder}: {error}"
        ) from error
    return builder
