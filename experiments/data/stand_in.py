"""A stand-in for photographs, to try streaming on without a download.

    --dataset experiments.data.stand_in:photographs --image-size 224

Noise of a colour, which tells classes apart: of the sizes that photographs on the web
have, made as they are read, and always the same.
"""

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZES = {"train": 300, "test": 100}
CLASSES = 10
SHORTEST, LONGEST = 250, 500


@dataclass(frozen=True)
class Photographs:
    """Some of them."""

    split: str

    def __len__(self) -> int:
        return SIZES[self.split]

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = np.random.default_rng((self.split == "test", index))
        height, width = generator.integers(SHORTEST, LONGEST + 1, 2)
        label = index % CLASSES
        colour = colorsys.hsv_to_rgb(label / CLASSES, 0.6, generator.uniform(0.4, 0.9))
        pixels = 255 * generator.normal(colour, 0.1, (height, width, 3))
        return {"image": pixels.clip(0, 255).astype(np.uint8), "label": label}


def photographs() -> dict[str, Any]:
    """The dataset, for `--dataset`."""
    names = [f"hue {36 * label}" for label in range(CLASSES)]
    return {split: Photographs(split) for split in SIZES} | {"class_names": names}
