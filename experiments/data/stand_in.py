"""A stand-in for photographs, to try streaming on without a download.

    --dataset experiments.data.stand_in:photographs --image-size 224

Clouds of two colours, which differ between classes, under noise: of the sizes that
photographs on the web have, made as they are read, and always the same.
"""

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

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
        coarse = generator.uniform(size=generator.integers(2, 9, 2)).astype(np.float32)
        size, smoothly = (int(width), int(height)), PIL.Image.Resampling.BICUBIC
        share = np.asarray(PIL.Image.fromarray(coarse).resize(size, smoothly))[..., None]
        cloud, sky = (
            np.array(colorsys.hsv_to_rgb(hue % 1, 0.6, generator.uniform(0.4, 0.9)))
            for hue in (label / CLASSES, label / CLASSES + 0.2)
        )
        noise = generator.normal(scale=0.1, size=(height, width, 3))
        pixels = 255 * (share * cloud + (1 - share) * sky + noise)
        return {"image": pixels.clip(0, 255).astype(np.uint8), "label": label}


def photographs() -> dict[str, Any]:
    """The dataset, for `--dataset`."""
    names = [f"hue {36 * label}" for label in range(CLASSES)]
    return {split: Photographs(split) for split in SIZES} | {"class_names": names}
