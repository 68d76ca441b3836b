"""Images to classify: scikit-learn's digits, or any TFDS image classification dataset.

TFDS datasets are read with `tfds.data_source`, which needs no TensorFlow but files in the
`array_record` format.
"""

import difflib
import importlib.util
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

# The split of digits, and the draw of a smaller training set, are the same for every
# seed of a network.
SEED = 0
DECODED_AT_ONCE = 500
DOWNLOAD_HOST = "https://storage.googleapis.com"
SECONDS_TO_CONNECT = 5


class Images(NamedTuple):
    """Images `(n, height, width, channels)`, and their labels `(n,)`."""

    images: Any
    labels: Any


class Dataset(NamedTuple):
    """Images to train on and images to score, float32; labels int32.

    Every channel of the training images has mean 0 and standard deviation 1; the images
    to score are shifted and scaled alike.
    """

    train: Images
    test: Images
    classes: int


class Source(NamedTuple):
    """A dataset before anything of it is read.

    Attributes:
        sizes: number of images of the splits `"train"` and `"test"`.
        classes: number of classes.
        read: `read(split, indices)` gives those images.
    """

    sizes: Mapping[str, int]
    classes: int
    read: Callable[[str, np.ndarray], Images]


Track = Callable[[Iterable[int], str], Iterable[int]]


def load(
    name: str,
    *,
    train_size: int | None = None,
    validation: bool = False,
    data_dir: Path | None = None,
    download: bool = False,
    track: Track = lambda chunks, _: chunks,
) -> Dataset:
    """Reads a dataset, and of its training images only those that are wanted.

    Args:
        name: `"digits"` or the name of a TFDS dataset, such as `"cifar10"`.
        train_size: number of training images, a random draw that is always the same;
            default all.
        validation: score a fifth of the training images, held out, instead of the test
            images.
        data_dir: folder of prepared TFDS datasets, default `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.
        download: let TFDS download and prepare a dataset that is not there.
        track: shows the progress of reading, as `rich.progress.track` does.

    Raises:
        ValueError: the dataset is unknown, not prepared, damaged or no image
            classification; or `train_size` does not fit it.
    """
    if name == "digits":
        source = digits()
    else:
        source = tfds_source(name, data_dir, download=download, track=track)
    count = source.sizes["train"]
    held_out = count // 5 if validation else 0
    if train_size is None:
        train_size = count - held_out
    if not source.classes <= train_size <= count - held_out:
        raise ValueError(
            f"--train-size is {train_size}; expected {source.classes} (the classes of "
            f"{name}) to {count - held_out} (its training images"
            f"{' less those held out' if validation else ''})"
        )
    order = np.random.default_rng(SEED).permutation(count)
    train = source.read("train", np.sort(order[:train_size]))
    if validation:
        test = source.read("train", np.sort(order[count - held_out :]))
    else:
        test = source.read("test", np.arange(source.sizes["test"]))
    axes = (0, 1, 2)
    mean = train.images.mean(axes, dtype=np.float64)
    deviation = train.images.std(axes, dtype=np.float64)
    deviation[deviation == 0] = 1

    def normalized(split: Images) -> Images:
        images = split.images.astype(np.float32)
        images -= mean.astype(np.float32)
        images /= deviation.astype(np.float32)
        return Images(images, split.labels.astype(np.int32))

    return Dataset(normalized(train), normalized(test), source.classes)


def digits() -> Source:
    """1,797 handwritten digits of 8x8 pixels, half of each class to train on.

    >>> digits().sizes
    {'train': 898, 'test': 899}
    """
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images.reshape(-1, 8, 8, 1),
        labels,
        test_size=0.5,
        stratify=labels,
        random_state=SEED,
    )
    splits = {"train": Images(*parts[::2]), "test": Images(*parts[1::2])}
    return Source(
        sizes={split: len(images.labels) for split, images in splits.items()},
        classes=10,
        read=lambda split, indices: Images(*(x[indices] for x in splits[split])),
    )


def tfds_source(
    name: str, data_dir: Path | None, *, download: bool, track: Track
) -> Source:
    """A prepared TFDS dataset with the features `image` and `label`."""
    import tensorflow_datasets as tfds  # takes a second, which digits does without

    logging.getLogger("absl").setLevel(logging.ERROR)  # which TFDS advises through

    folder = Path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    ).expanduser()
    dataset = name.partition(":")[0].partition("/")[0]
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
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
        builder = _download(name, folder, tfds)

    features, splits = builder.info.features, builder.info.splits
    where = f"dataset {name!r} in {builder.data_path}"
    for feature, kind in {
        "image": tfds.features.Image,
        "label": tfds.features.ClassLabel,
    }.items():
        if not isinstance(dict(features).get(feature), kind):
            raise ValueError(
                f"{where} is no image classification: expected a feature {feature!r} "
                f"that is a tfds.features.{kind.__name__}; it has {', '.join(features)}"
            )
    shape = features["image"].shape
    if None in shape:
        raise ValueError(
            f"{where} has images of shape {shape}; expected images of one size"
        )
    names = {"train": "train", "test": "test" if "test" in splits else "validation"}
    for split in names.values():
        if split not in splits:
            raise ValueError(
                f"{where} has the splits {', '.join(splits)}; expected train, and test "
                "or validation"
            )

    formats = builder.info.available_file_formats()
    if formats.isdisjoint(tfds.core.FileFormat.with_random_access()):
        raise ValueError(
            f"{where} is in the format {', '.join(f.value for f in formats)}; expected "
            "array_record, which is read without TensorFlow"
        )

    def read(split: str, indices: np.ndarray) -> Images:
        images = np.empty((len(indices), *shape), features["image"].np_dtype)
        labels = np.empty(len(indices), np.int64)
        starts: Iterable[int] = range(0, len(indices), DECODED_AT_ONCE)
        if len(indices) > DECODED_AT_ONCE:
            starts = track(starts, f"reading {name}, {names[split]}")
        try:
            records = builder.as_data_source(split=names[split])
            for start in starts:
                part = slice(start, start + DECODED_AT_ONCE)
                examples = records.__getitems__(indices[part].tolist())
                images[part] = [example["image"] for example in examples]
                labels[part] = [example["label"] for example in examples]
        except Exception as error:
            raise ValueError(f"{where} cannot be read: {error}") from error
        if (labels < 0).any():
            raise ValueError(f"{where} has images without a label in {names[split]}")
        return Images(images, labels)

    sizes = {split: splits[names[split]].num_examples for split in names}
    for split, size in sizes.items():  # a damaged file is found before a long reading
        read(split, np.array([0, size - 1]))
    return Source(sizes, features["label"].num_classes, read)


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


def _download(name: str, folder: Path, tfds: Any) -> Any:
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
