"""Decoded images on disk, opened as memory maps.

Each split has a folder of `images.npy`, `labels.npy` and, written last, `checksums.json`,
which is named by the version of the images: changed ones are decoded anew. Files are
replaced as a whole, and processes that decode the same images write the same files.
"""

import hashlib
import io
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from experiments.data.images import Images
from experiments.data.source import Source
from experiments.run_folder import replacing, write_json

VARIABLE = "CONVSIM_JAX_CACHE"
DECODED_AT_ONCE = 500
READ_AT_ONCE = 1 << 24
# Of the files that are written; to be raised when images are decoded in another way.
FORMAT = 1
DTYPES: dict[str, np.dtype] = {"images": np.dtype(np.uint8), "labels": np.dtype(np.int32)}

Track = Callable[[Iterable[int], str], Iterable[int]]
logger = logging.getLogger(__name__)


def decoded(
    source: Source, split: str, *, cache_dir: Path | None, track: Track
) -> Images:
    """All images of a split, from the cache if they are in it.

    Args:
        source: of images of one size. One that is in memory anyway is not cached.
        split: `"train"` or `"test"`.
        cache_dir: default `CONVSIM_JAX_CACHE`, or `convsim_jax` in `XDG_CACHE_HOME` or
            `~/.cache`.
        track: shows the progress of decoding.

    Raises:
        ValueError: an image cannot be read, or has another size.
        OSError: the cache cannot be written.
    """
    version = source.examples(split).version()
    if version is None:
        parts = list(_parts(source, split, lambda starts, _: starts))
        return Images(*map(np.concatenate, zip(*parts, strict=True)))
    cache = (cache_dir or _default()).expanduser()
    key = repr((FORMAT, source.name, split, source.shape, version))
    name = re.sub(r"[^\w.-]+", "_", f"{source.name}-{split}")[-50:]
    folder = cache / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        return _open(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        logger.warning("warning: images are decoded again: %s", error)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, source, split, track)
        return _open(folder)
    except OSError as error:
        raise OSError(
            f"--cache-dir is {cache}, where decoded images cannot be kept: "
            f"{error.strerror or error} (another folder: --cache-dir or {VARIABLE})"
        ) from error


def _default() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get(VARIABLE) or caches / "convsim_jax")


def _open(folder: Path) -> Images:
    """Raises FileNotFoundError if nothing is there, ValueError if it is damaged."""
    expected = json.loads((folder / "checksums.json").read_bytes())
    files = {name: folder / f"{name}.npy" for name in DTYPES}
    if expected != {name: _checksum(file) for name, file in files.items()}:
        raise ValueError(f"the files in {folder} are damaged")
    return Images(*(np.load(file, mmap_mode="r") for file in files.values()))


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as content:
        for part in iter(partial(content.read, READ_AT_ONCE), b""):
            checksum = zlib.crc32(part, checksum)
    return checksum


def _write(folder: Path, source: Source, split: str, track: Track) -> None:
    count = source.sizes[split]
    labels = []

    def images() -> Iterator[np.ndarray]:
        for part in _parts(source, split, track):
            labels.append(part.labels)
            yield part.images

    checksums = {
        "images": _save(folder / "images.npy", (count, *source.shape), images()),
        "labels": _save(folder / "labels.npy", (count,), labels),
    }
    write_json(folder / "checksums.json", checksums)


def _save(path: Path, shape: tuple, parts: Iterable[np.ndarray]) -> int:
    """Writes an array in parts, and gives the checksum of what should be there.

    Not through a memory map: on a full disk that ends the process.
    """
    about = {"descr": DTYPES[path.stem].str, "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, about)
    checksum = zlib.crc32(header.getbuffer())
    with replacing(path, "wb") as file:
        file.write(header.getbuffer())
        for part in parts:
            file.write(part.data)
            checksum = zlib.crc32(part.data, checksum)
    return checksum


def _parts(source: Source, split: str, track: Track) -> Iterator[Images]:
    """All images of a split, some at a time."""
    examples, count = source.examples(split), source.sizes[split]
    starts = range(0, count, DECODED_AT_ONCE)
    for start in track(starts, f"decoding {source.name}, {split}"):
        indices = range(start, min(start + DECODED_AT_ONCE, count))
        images, labels = zip(*examples.__getitems__(indices), strict=True)
        for index, image in zip(indices, images, strict=True):
            if image.shape != source.shape:
                raise ValueError(
                    f"{examples.title(index)} is {_size(image.shape)}; expected "
                    f"{_size(source.shape)}, the size of the others"
                )
        yield Images(np.stack(images), np.array(labels, DTYPES["labels"]))


def _size(shape: tuple) -> str:
    return "x".join(map(str, shape))
