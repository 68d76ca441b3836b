"""What becomes of a picture: upright, 8 bits a channel, on white; whole or in part."""

import math

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

# Pillow's name of a kind of image, by its number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# Left, top, right and bottom, in pixels and fractions of them.
Box = tuple[float, float, float, float]

# How much of the shorter side is scored: 224 of 256 pixels, as is usual for ImageNet.
SCORED = 0.875
AREAS = 0.08, 1.0
LOG_RATIOS = math.log(3 / 4), math.log(4 / 3)
ATTEMPTS = 10


def size_of(picture: PIL.Image.Image) -> tuple[int, int]:
    """Width and height, once it is upright."""
    width, height = picture.size
    return (height, width) if _orientation(picture) > 4 else (width, height)


def whole(picture: PIL.Image.Image, channels: int) -> np.ndarray:
    """A picture as it is: uint8 `(height, width, channels)`."""
    return _as_array(_converted(_upright(picture), channels))


def cut(picture: PIL.Image.Image, box: Box, size: int, channels: int) -> np.ndarray:
    """What is in a box of the upright picture, resized to `(size, size, channels)`.

    A JPEG file is decoded at a half, a quarter or an eighth of its size, where that is
    enough.
    """
    left, top, right, bottom = box
    width, height = size_of(picture)
    across = math.ceil(width * size / (right - left))
    down = math.ceil(height * size / (bottom - top))
    lies = _orientation(picture) > 4
    picture.draft(MODES[channels], (down, across) if lies else (across, down))
    picture = _upright(picture)
    x, y = picture.width / width, picture.height / height
    box = left * x, top * y, right * x, bottom * y
    converted = _converted(picture, channels)
    return _as_array(converted.resize((size, size), PIL.Image.Resampling.BILINEAR, box))


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


def _orientation(picture: PIL.Image.Image) -> int:
    """As EXIF counts it; above 4 a picture lies on its side."""
    if picture.format == "TIFF":  # which Pillow turns itself
        return 1
    try:
        return int(picture.getexif().get(PIL.ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that is damaged says nothing
        return 1


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    return PIL.ImageOps.exif_transpose(picture) if _orientation(picture) > 1 else picture


def _converted(picture: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """Of that many channels: as Pillow does it, without what that loses or reveals."""
    sixteen = picture.mode.startswith("I;16")
    if sixteen or (picture.mode == "I" and picture.format == "PPM"):
        # The upper 8 bits; Pillow would make white of all that is above 255.
        picture = PIL.Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits a channel; expected 8 or 16")
    if picture.has_transparency_data and channels < 4:
        # Below what is transparent there may be any colours.
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert(MODES[channels])


def _as_array(picture: PIL.Image.Image) -> np.ndarray:
    return np.atleast_3d(np.asarray(picture))
