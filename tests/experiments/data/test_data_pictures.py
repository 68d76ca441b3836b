"""Pictures, on the host: boxes cut out of them, and what Pillow has to be told."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments.data.pictures import central_box, cut, random_box, size_of, whole


def plane(width, height):
    """An image whose channels are the column, the row and neither, up to 255."""
    image = np.zeros((height, width, 3))
    image[..., 0] = (np.arange(width) + 0.5) * 255 / width
    image[..., 1] = (np.arange(height)[:, None] + 0.5) * 255 / height
    image[..., 2] = 128
    return Image.fromarray(image.round().astype(np.uint8))


def expected(width, height, box, size):
    """The plane at the middles of the squares that a box is divided into."""
    left, top, right, bottom = box
    middles = (np.arange(size) + 0.5) / size
    columns = (left + (right - left) * middles) * 255 / width
    rows = (top + (bottom - top) * middles) * 255 / height
    return np.stack(np.broadcast_arrays(columns, rows[:, None], 128), axis=-1)


@pytest.mark.parametrize("box", [(20, 30, 180, 110), (0.5, 10.25, 100, 60.75)])
@pytest.mark.parametrize("size", [10, 96])
def test_what_is_in_a_box_is_resized(box, size):
    result = cut(plane(200, 120), box, size, 3)
    assert result.shape == (size, size, 3) and result.dtype == np.uint8
    inner = slice(size // 8, -size // 8)  # at the borders of the image there is no plane
    difference = (result - expected(200, 120, box, size))[inner, inner]
    assert np.abs(difference).max() < 1.6  # of rounding, twice


@pytest.mark.parametrize(
    ("box", "turned", "decoded"),
    [
        ((0, 0, 320, 240), False, (80, 60)),
        ((160, 120, 240, 200), False, (320, 240)),
        ((0, 0, 320, 240), True, (60, 80)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(box, turned, decoded):
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1  # to be turned to the right
    upright = plane(320, 240)
    lying = upright.rotate(90, expand=True) if turned else upright
    picture = reopened(lying, "JPEG", exif=exif, quality=95)
    assert size_of(picture) == (320, 240)
    result = cut(picture, box, 50, 3)
    assert picture.size == decoded
    difference = (result - expected(320, 240, box, 50))[6:-6, 6:-6]
    assert np.abs(difference).max() < 6  # of JPEG


def test_random_boxes_fit_and_have_the_areas_and_ratios_that_were_asked_for():
    generator = np.random.default_rng(0)
    boxes = np.array([random_box(generator, 400, 300) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0
    assert right.max() <= 400 and bottom.max() <= 300
    areas = (right - left) * (bottom - top) / (400 * 300)
    ratios = (right - left) / (bottom - top)
    assert 0.08 <= areas.min() < 0.1 and 0.95 < areas.max() <= 1 + 1e-9
    assert 0.75 <= ratios.min() < 0.77 and 1.31 < ratios.max() <= 4 / 3 + 1e-9
    # Where a box can be anywhere, its middle is that of the image on average.
    np.testing.assert_allclose((left + right).mean() / 2, 200, atol=6)
    np.testing.assert_allclose((top + bottom).mean() / 2, 150, atol=6)
    # Small boxes always fit: their areas are uniform, and so are logarithms of ratios.
    small = areas < 0.5
    np.testing.assert_allclose(areas[small].mean(), 0.29, atol=0.015)
    np.testing.assert_allclose(np.log(ratios[small]).mean(), 0, atol=0.02)


def test_boxes_in_the_middle():
    assert random_box(np.random.default_rng(0), 100, 1) == (49.5, 0, 50.5, 1)
    assert central_box(80, 160) == (5, 45, 75, 115)  # seven eighths are scored


def reopened(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


# What is to be done with a picture of that orientation, as EXIF defines it.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(orientation, kind):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    expected = UPRIGHT[orientation](image)
    height, width, _ = expected.shape
    picture = reopened(Image.fromarray(image), kind, exif=exif, **options)
    assert size_of(picture) == (width, height)
    np.testing.assert_array_equal(whole(picture, 3), expected)
    picture = reopened(Image.fromarray(image), kind, exif=exif, **options)
    box = width - 4, height - 4, width, height
    np.testing.assert_array_equal(cut(picture, box, 4, 3), expected[-4:, -4:])


def test_damaged_exif_says_nothing():
    image = np.zeros((2, 3, 3), np.uint8)
    picture = reopened(Image.fromarray(image), "PNG", exif=b"Exif\x00\x00 this is none")
    assert size_of(picture) == (3, 2) and whole(picture, 3).shape == (2, 3, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_8_are_read(kind, channels):
    image = np.random.default_rng(0).integers(0, 2**16, (5, 7)).astype(np.uint16)
    picture = reopened(Image.fromarray(image), kind)
    expected = np.repeat((image // 256)[..., None], channels, axis=-1)
    np.testing.assert_array_equal(whole(picture, channels), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(dtype):
    picture = reopened(Image.fromarray(np.zeros((2, 2), dtype)), "TIFF")
    with pytest.raises(ValueError, match="32 bits a channel; expected 8 or 16"):
        whole(picture, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_whatever_is_below(mode):
    hidden = np.array([[1, 0]] * 3, np.uint8)
    image = np.where(hidden[..., None], [90, 90, 90, 0], [10, 10, 10, 255])
    picture = Image.fromarray(image.astype(np.uint8)).convert(mode)
    options = {}
    if mode == "P":
        picture = Image.fromarray(hidden).convert("P")
        picture.putpalette([10, 10, 10, 90, 90, 90])
        options["transparency"] = 1
    result = whole(reopened(picture, "PNG", **options), 3)
    np.testing.assert_array_equal(result, np.where(hidden, 255, 10)[..., None] + [0] * 3)
    if mode == "RGBA":
        np.testing.assert_array_equal(whole(reopened(picture, "PNG"), 4), image)
