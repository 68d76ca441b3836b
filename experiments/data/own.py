"""A dataset of one's own: what a function gives, arrays or anything indexed.

`--dataset package.module:function` names a function without arguments that returns a
mapping. Its `"train"` and `"test"` are each a pair `(images, labels)`, uint8 arrays
`(n, height, width, channels)` and whole numbers `(n,)`; or a sequence, read as it is
needed, of mappings `{"image": (height, width, channels), "label": number}`, as
`tfds.data_source`, Grain's sources and Hugging Face's datasets are; an image may be the
bytes of a file, too. Its `"class_names"` may be left out with pairs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.data.source import Examples, Source, common_shape
from experiments.own_code import called, named

SPLITS = ("train", "test")


def own_dataset(name: str) -> Source:
    """What the function of that name gives."""
    given = called(named("--dataset", name), "--dataset", name)
    return from_splits(name, given, f"--dataset {name}")


def from_splits(name: str, given: Any, where: str) -> Source:
    """A source of what such a function gives; `where` is what errors call it."""
    if not isinstance(given, Mapping) or not given.keys() >= {*SPLITS}:
        found = list(given) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"{where} gives {found}; expected a mapping: train, test")
    splits = {split: _by_index(given[split], f"{split} of {where}") for split in SPLITS}
    labels = [given[split][1] for split in SPLITS if isinstance(given[split], tuple)]
    counted = range(int(max(map(np.max, labels))) + 1) if len(labels) == 2 else ()
    class_names = tuple(map(str, given.get("class_names", counted)))
    if len(class_names) < 2:
        raise ValueError(
            f"{where} has the class_names {class_names}; expected two or more"
        )
    parts = {
        split: Examples(data, f"{split} of {where}", len(class_names))
        for split, data in splits.items()
    }
    ((mode, _),) = parts["train"].read([0], lambda picture: picture.mode)
    channels = {"L": 1, "I;16": 1, "RGBA": 4}.get(mode, 3)
    parts = {split: replace(part, channels=channels) for split, part in parts.items()}
    return Source(name, class_names, common_shape(parts), parts)


def _by_index(data: Any, where: str) -> Any:
    """A split's examples; those of a pair are views of its arrays."""
    if isinstance(data, tuple):
        images, labels = map(np.asarray, data)
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{where} has {len(images)} images, and labels {labels.dtype}"
                f"{labels.shape}; expected as many whole numbers"
            )
        data = list(zip(images, labels.tolist(), strict=True))
    if not len(data):
        raise ValueError(f"{where} has no images; expected some")
    return data
