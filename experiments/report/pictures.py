"""Kernels as pictures: a pixel a weight, or a pair of kernels; the page enlarges them."""

import base64
import io
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

import convsim_jax as cs
from experiments.losses import SCALE_FREE
from experiments.record import Run, read_kernels

# More kernels than this are not told apart in a picture.
SHOWN = 64
# More layers than this say the same again.
LAYERS = 4


class Picture(NamedTuple):
    """Something of a layer's kernels before and after training, as PNGs in addresses."""

    layer: str
    about: str
    start: str
    end: str
    start_caption: str
    end_caption: str


def filters(run: Run) -> Picture | None:
    """The filters of the first layer that has any to be seen, if there is one."""
    for layer, start, end in _kernels(run)[:1]:
        height, width, channels, count = start.shape
        seen = "red, green and blue" if channels == 3 else "grey"
        if channels not in (1, 3):
            seen = f"the first of {channels} input channels"
        return Picture(
            layer,
            f"{min(count, SHOWN)} of {count} filters of {height}x{width}, {seen}",
            data_uri(tiles(start)),
            data_uri(tiles(end)),
            "before training",
            "after training",
        )
    return None


def matrices(run: Run) -> list[Picture]:
    """The similarity of every two kernels, of a few layers from the first to the last."""
    layers = [layer for layer in _kernels(run) if layer[1].shape[-1] > 1]
    chosen = np.linspace(0, len(layers) - 1, min(LAYERS, len(layers)))
    found = []
    for layer, *kernels in (layers[round(i)] for i in chosen):
        both = [matrix(kernel) for kernel in kernels]
        captions = (
            f"{when} training: mean {of[~np.eye(len(of), dtype=bool)].mean():.2f}"
            for when, of in zip(("before", "after"), both, strict=True)
        )
        about = f"{len(both[0])} of {kernels[0].shape[-1]} kernels"
        images = (data_uri(coloured(of)) for of in both)
        found.append(Picture(layer, about, *images, *captions))
    return found


def scale() -> str:
    """The colours of the matrices from 0 to 1, as a PNG in an address."""
    return data_uri(coloured(np.linspace(0, 1, 64)[None]))


def tiles(kernel: np.ndarray) -> np.ndarray:
    """The filters of a kernel side by side, with a transparent pixel in between.

    Grey is zero, and each filter's largest weight is white or black. Three input channels
    are shown as red, green and blue, of any other number the first alone.

    Args:
        kernel: `(height, width, C, M)`; the first `SHOWN` of the M are taken.

    Returns:
        RGBA, `(rows, columns, 4)`, uint8.
    """
    kernel = np.asarray(kernel, np.float64)[..., :SHOWN]
    kernel = kernel if kernel.shape[2] == 3 else kernel[:, :, :1].repeat(3, axis=2)
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    kernel = 0.5 + 0.5 * kernel / np.where(largest > 0, largest, 1)
    height, width, _, count = kernel.shape
    columns = min(count, 8)
    rows = -(-count // columns)
    image = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for i in range(count):
        y, x = (i // columns) * (height + 1), (i % columns) * (width + 1)
        image[y : y + height, x : x + width, :3] = np.round(255 * kernel[..., i])
        image[y : y + height, x : x + width, 3] = 255
    return image


def matrix(kernel: np.ndarray) -> np.ndarray:
    """Scale-free cross-channel similarity of the first `SHOWN` kernels, `(M, M)`."""
    return np.asarray(
        cs.similarity_matrix(kernel[..., :SHOWN], **SCALE_FREE._asdict()), np.float64
    )


def coloured(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] in the colours of the map `magma`: RGBA, uint8."""
    return matplotlib.colormaps["magma"](values, bytes=True)


def data_uri(image: np.ndarray) -> str:
    """An image as a PNG inside its address."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _kernels(run: Run) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Layer, kernel before and after training, of 2-D kernels of more than one tap."""
    if run.outcome is None or (kernels := read_kernels(run.folder)) is None:
        return []
    found = []
    for name in run.outcome.end.names:
        both = [kernels.get(f"{when}/{name}") for when in ("start", "end")]
        start, end = both
        if start is None or end is None or start.shape != end.shape:
            continue
        seen = start.ndim == 4 and start[..., 0, 0].size > 1 and start.shape[-1] > 0
        if seen and np.isfinite(start).all() and np.isfinite(end).all():
            found.append((name.removesuffix("/kernel"), start, end))
    return found
