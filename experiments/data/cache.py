"""Decoded images on disk, one file a split, whose name has what the images are in it.

Changed images are decoded anew. A file is replaced as a whole, and processes that decode
the same images write the same file.
"""

import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from experiments.data.images import Images
from experiments.data.source import Source
from experiments.run_folder import replacing

VARIABLE = "CONVSIM_JAX_CACHE"
DECODED_AT_ONCE = 500
# Of the files that are written; to be raised when images are decoded in another way.
FORMAT = 2

Track = Callable[[Iterable[int], str], Iterable[int]]
logger = logging.getLogger(__name__)


def decoded(
    source: Source, split: str, *, cache_dir: Path | None, track: Track
) -> Images:
    """All images of a split, of one size, from the cache if they are in it.

    That is `cache_dir`, else `CONVSIM_JAX_CACHE`, else `convsim_jax` in `XDG_CACHE_HOME`
    or `~/.cache`. Images that are in memory anyway are not kept there. `track` shows the
    progress of decoding, as `rich.progress.track` does.
    """
    examples = source.splits[split]
    if examples.in_memory:
        return _decoded(source, split, lambda starts, _: starts)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    default = os.environ.get(VARIABLE) or caches / "convsim_jax"
    cache = Path(os.path.expanduser(cache_dir or default))  # noqa: PTH111
    key = repr((FORMAT, split, source.shape, examples.checksum(local=True)))
    name = re.sub(r"[^\w.-]+", "_", f"{source.name}-{split}", flags=re.ASCII)[-50:]
    file = cache / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            return Images(arrays["images"], arrays["labels"])
    except FileNotFoundError:
        pass
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        logger.warning("warning: images are decoded again: %s: %s", file, error)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        images = _decoded(source, split, track)
        with replacing(file, "wb") as new:
            np.savez(new, **images._asdict())
    except OSError as error:
        raise OSError(
            f"--cache-dir is {cache}, where decoded images cannot be kept: "
            f"{error.strerror or error} (another folder: --cache-dir or {VARIABLE})"
        ) from error
    return images


def _decoded(source: Source, split: str, track: Track) -> Images:
    examples, count = source.splits[split], source.sizes[split]
    shape: tuple = (count, *source.shape)
    images, labels = np.empty(shape, np.uint8), np.empty(count, np.int32)
    starts = range(0, count, DECODED_AT_ONCE)
    for start in track(starts, f"decoding {source.name}, {split}"):
        indices = range(start, min(start + DECODED_AT_ONCE, count))
        for index, example in zip(indices, examples.__getitems__(indices), strict=True):
            image, labels[index] = example
            if image.shape != source.shape:
                found, expected = ("x".join(map(str, x.shape)) for x in (image, source))
                raise ValueError(
                    f"{examples.title(index)} is {found}; expected {expected}, the size "
                    "of the others"
                )
            images[index] = image
    return Images(images, labels)
