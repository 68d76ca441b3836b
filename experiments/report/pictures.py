"""Kernels as pictures: a pixel a weight, or a pair of kernels; the page enlarges them."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

import convsim_jax as cs
from experiments.losses import SCALE_FREE
from experiments.record import Run, read_kernels

SHOWN = 64  # more kernels are not told apart in a picture
LAYERS = 4  # more layers say the same again


class Picture(NamedTuple):
    """A layer's kernels before and after training, each as a PNG in an address."""

    layer: str
    shape: tuple[int, ...]
    images: list[str]


def filters(run: Run) -> list[Picture]:
    """The filters of the first layer, if there is one."""
    return _pictures(kernels_of(run)[:1], tiles)


def matrices(run: Run) -> list[Picture]:
    """The similarity of every two kernels, of a few layers from the first to the last."""
    layers = [layer for layer in kernels_of(run) if layer[1][0].shape[-1] > 1]
    chosen = np.linspace(0, len(layers) - 1, min(LAYERS, len(layers)))
    return _pictures([layers[round(i)] for i in chosen], similarities)


def tiles(kernel: np.ndarray) -> np.ndarray:
    """The filters of a kernel side by side, with a transparent pixel in between.

    Grey is zero, and each filter's largest weight is white or black. Three input channels
    are shown as red, green and blue, of any other number the first alone. Of a kernel
    `(height, width, C, M)` the first `SHOWN` of the M are taken; the result is RGBA.
    """
    kernel = np.asarray(kernel, np.float64)[..., :SHOWN]
    kernel = kernel if kernel.shape[2] == 3 else kernel[:, :, :1].repeat(3, axis=2)
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    pixels = 255 * (0.5 + 0.5 * kernel / np.where(largest > 0, largest, 1))
    height, width, _, count = kernel.shape
    columns = min(count, 8)
    rows = -(-count // columns)
    image = np.zeros((rows, height + 1, columns, width + 1, 4), np.uint8)
    for i in range(count):
        tile = image[i // columns, :height, i % columns, :width]
        tile[..., :3], tile[..., 3] = np.round(pixels[..., i]), 255
    return image.reshape(rows * (height + 1), columns * (width + 1), 4)[:-1, :-1]


def similarities(kernel: np.ndarray) -> np.ndarray:
    """Scale-free cross-channel similarity of the first `SHOWN` kernels, as colours."""
    matrix = cs.similarity_matrix(kernel[..., :SHOWN], **SCALE_FREE._asdict())
    return matplotlib.colormaps["magma"](np.asarray(matrix, np.float64), bytes=True)


def data_uri(image: np.ndarray) -> str:
    """An image as a PNG inside its address."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def kernels_of(run: Run) -> list[tuple[str, list[np.ndarray]]]:
    """Of a finished run, layers with 2-D kernels of more than one tap: before, after."""
    arrays = (read_kernels(run.folder) if run.outcome else None) or {}
    found = []
    for name in run.outcome.end.names if run.outcome else ():
        both = [arrays[key] for key in (f"start/{name}", f"end/{name}") if key in arrays]
        if len(both) == 2 and all(
            kernel.ndim == 4 and kernel[..., 0, 0].size > 1 and np.isfinite(kernel).all()
            for kernel in both
        ):
            found.append((name.removesuffix("/kernel"), both))
    return found


def _pictures(
    layers: list[tuple[str, list[np.ndarray]]], draw: Callable[[np.ndarray], np.ndarray]
) -> list[Picture]:
    return [
        Picture(layer, both[0].shape, [data_uri(draw(kernel)) for kernel in both])
        for layer, both in layers
    ]
