"""Squares cut out of images of any size, on the host."""

import math

import numpy as np
import PIL.Image

from experiments.data.examples import MODES, as_array

# Left, top, right and bottom, in pixels and fractions of them.
Box = tuple[float, float, float, float]

# How much of the shorter side is scored: 224 of 256 pixels, as is usual for ImageNet.
SCORED = 0.875
AREAS = 0.08, 1.0
LOG_RATIOS = math.log(3 / 4), math.log(4 / 3)
ATTEMPTS = 10


def random_box(generator: np.random.Generator, width: int, height: int) -> Box:
    """A box of 8 to 100 % of an image's area and a width of 3/4 to 4/3 of its height.

    After ten that do not fit, as in a very long image, it is the largest square in the
    middle.
    """
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*AREAS)
        ratio = math.exp(generator.uniform(*LOG_RATIOS))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = generator.uniform((0, 0), (width - across, height - down))
            return left, top, left + across, top + down
    return central_box(width, height, 1.0)


def central_box(width: int, height: int, fraction: float = SCORED) -> Box:
    """The square in the middle, of that fraction of an image's shorter side.

    >>> central_box(40, 20, 0.5)
    (15.0, 5.0, 25.0, 15.0)
    """
    half = fraction * min(width, height) / 2
    return width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half


def cut(picture: PIL.Image.Image, box: Box, size: int, channels: int) -> np.ndarray:
    """What is in a box, resized to `(size, size, channels)`.

    A JPEG file is decoded at a half, a quarter or an eighth of its size, where that is
    enough.
    """
    left, top, right, bottom = box
    width, height = picture.size
    enough_across = math.ceil(width * size / (right - left))
    enough_down = math.ceil(height * size / (bottom - top))
    picture.draft(MODES[channels], (enough_across, enough_down))
    across, down = picture.width / width, picture.height / height
    box = (left * across, top * down, right * across, bottom * down)
    converted = picture.convert(MODES[channels])
    square = converted.resize((size, size), PIL.Image.Resampling.BILINEAR, box)
    return as_array(square, channels)
