"""Finds a dataset that TFDS has prepared, or says what there is instead."""

import difflib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

DOWNLOAD_HOST = "https://storage.googleapis.com"
SECONDS_TO_CONNECT = 5


def find_builder(name: str, data_dir: Path | None, *, download: bool) -> Any:
    """The `tfds.core.DatasetBuilder` of a prepared dataset.

    Args:
        name: as TFDS has it: `name`, `name/config`, `name:version`.
        data_dir: folder of prepared datasets, default `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.
        download: let TFDS download and prepare what is not there.

    Raises:
        ValueError: it is unknown, not prepared or damaged.
    """
    folder = Path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    ).expanduser()
    dataset = name.partition(":")[0].partition("/")[0]
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except Exception as error:
        missing = isinstance(error, tfds.core.registered.DatasetNotFoundError)
        if not missing and dataset.isidentifier():  # others are no name of a dataset
            raise ValueError(
                f"dataset {name!r} in {folder} cannot be opened: {error}"
            ) from error
        known = tfds.list_builders(with_community_datasets=False)
        message = _not_found(name, dataset, folder, known)
        if not download:
            raise ValueError(message) from error
    return _download(name, folder)


def _not_found(name: str, dataset: str, folder: Path, known: Sequence[str]) -> str:
    """What is wrong: the folder, the name, or that nobody has prepared the dataset."""
    prepared = _prepared(folder)
    versions = [path for path in prepared if path.parts[0] == dataset]
    expected = folder / dataset / "<version>" / "dataset_info.json"
    if versions:
        return (
            f"dataset {name!r} is not prepared: {folder} holds "
            f"{', '.join(map(str, versions))}"
        )
    if dataset.isidentifier() and (folder / dataset).is_dir():
        return (
            f"{folder / dataset} is not a prepared TFDS dataset: there is no {expected} "
            f"with the features.json beside it for {name!r}"
        )
    if dataset not in known:
        here = ", ".join(sorted({path.parts[0] for path in prepared})) or "none is"
        close = difflib.get_close_matches(dataset, [*known, "digits"], n=5)
        return (
            f"--dataset is {name!r}; expected digits, a dataset prepared in {folder} "
            f"({here}), or one that TFDS knows, such as "
            f"{', '.join(close or ['cifar10', 'mnist'])}"
        )
    return (
        f"dataset {name!r} is not prepared: looked for {expected}; name the folder of "
        "prepared datasets with --data-dir or TFDS_DATA_DIR, or let --download prepare "
        "it, which needs a network and TensorFlow (pip install tensorflow)"
    )


def _prepared(folder: Path) -> list[Path]:
    """The datasets in a folder: `name/version` or `name/config/version`."""
    return sorted(
        file.parent.relative_to(folder)
        for pattern in ("*/*/features.json", "*/*/*/features.json")
        for file in folder.glob(pattern)
        if file.with_name("dataset_info.json").exists()
    )


def _download(name: str, folder: Path) -> Any:
    """Has TFDS prepare a dataset, once it is likely that it can."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            f"--download: TFDS needs TensorFlow to prepare {name!r}, and it is not "
            "installed: pip install tensorflow"
        )
    try:  # TFDS itself would go on trying for minutes
        urllib.request.urlopen(DOWNLOAD_HOST, timeout=SECONDS_TO_CONNECT).close()
    except urllib.error.HTTPError:
        pass  # an answer, if not to this address
    except OSError as error:
        raise ValueError(
            f"--download: {name!r} cannot be downloaded, {DOWNLOAD_HOST} does not "
            f"answer: {error}"
        ) from error
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"--download: TFDS failed to prepare {name!r} in {folder}: {error}"
        ) from error
    return builder
