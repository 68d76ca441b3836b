"""Where a run's images come from: all on the device, or streamed from disk."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from experiments.data.images import Dataset, Images
from experiments.data.source import Source
from experiments.data.stream import prefetched, score_stream, train_stream
from experiments.fit.devices import divided, replicated, rows_of_this_process
from experiments.fit.engine import Engine
from experiments.fit.memory import device_memory
from experiments.fit.optimizer import Factors
from experiments.fit.step import Network

SCORED_AT_ONCE = 512
SAMPLE = 256
# Of ImageNet's pixels, 0 to 255: what streamed images are normalised by, as usual; by
# the means of these where they are not red, green and blue.
IMAGENET_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
IMAGENET_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


class Feed(Protocol):
    """The images of a run."""

    classes: int  # number of classes
    shape: tuple[int, int, int]  # of an image
    sizes: dict[str, int]  # numbers of images, `"train"`, `"validation"` and `"test"`
    steps: int  # of an epoch
    mean: np.ndarray  # of each channel
    deviation: np.ndarray
    sample: np.ndarray  # some images of training, uint8

    def train(
        self,
        engine: Engine,
        network: Network,
        factors: Factors,
        epoch: int,
        steps: range,
    ) -> Network:
        """Takes some steps of an epoch; `network` is used up."""

    def score(self, split: str) -> Iterator[Images]:
        """All images of `"validation"` or `"test"`, divided among the devices."""


class Resident:
    """All training images on every device."""

    def __init__(self, dataset: Dataset, batch_size: int):
        check_batch_size(batch_size, len(dataset.train.labels))
        self._dataset, self._batch_size = dataset, batch_size
        self.classes = dataset.classes
        self.shape = dataset.train.images.shape[1:]
        self.sizes = {
            split: len(getattr(dataset, split).labels)
            for split in ("train", "validation", "test")
        }
        self.steps = self.sizes["train"] // batch_size
        self.mean, self.deviation = dataset.mean, dataset.deviation
        self.sample = np.asarray(dataset.train.images[:SAMPLE])
        self._images = Images(*replicated(tuple(dataset.train)))

    def train(
        self,
        engine: Engine,
        network: Network,
        factors: Factors,
        epoch: int,
        steps: range,
    ) -> Network:
        """Takes some steps of an epoch, in one program."""
        return engine.train(
            network, factors, epoch, steps, self._batch_size, self._images
        )

    def score(self, split: str) -> Iterator[Images]:
        """All images of a split, in order."""
        for batch in batches_of(getattr(self._dataset, split), scored_at_once()):
            rows = rows_of_this_process(len(batch.labels))
            yield divided(Images(*(x[rows] for x in batch)))


class Streamed:
    """Images read, cut and flipped by worker processes while the devices compute."""

    def __init__(
        self,
        source: Source,
        indices: tuple[np.ndarray, np.ndarray],
        batch_size: int,
        image_size: int,
        workers: int,
        augment: bool,
    ):
        train, validation = indices
        check_batch_size(batch_size, len(train))
        self._indices = {
            "train": train,
            "validation": validation,
            "test": np.arange(source.sizes["test"]),
        }
        self.classes = source.classes
        channels = source.shape[-1]
        self.shape = (image_size, image_size, channels)
        self.sizes = {split: len(chosen) for split, chosen in self._indices.items()}
        self.steps = self.sizes["train"] // batch_size
        self.mean, self.deviation = (
            of if channels == 3 else np.full(channels, of.mean())
            for of in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        # The first thing that is done with them takes them as bytes and as floats.
        count = min(SAMPLE, len(train))
        needed = 5 * count * image_size**2 * channels
        if needed > (there := device_memory()):
            raise ValueError(
                f"--image-size is {image_size}: the first {count} images take "
                f"{needed >> 30:,} GiB of memory, and there are {there >> 30:,}"
            )
        first = score_stream(
            source, "train", train[:SAMPLE], batch_size=count, image_size=image_size
        )
        self.sample = next(first).images
        common: dict[str, Any] = {
            "image_size": image_size,
            "workers": workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }
        batches: dict[str, Any] = {
            "batch_size": batch_size,
            "augment": augment,
            "seed": 0,
            **common,
        }
        self._epoch_of = partial(train_stream, source, train, **batches)
        at_once = scored_at_once(batch_size)
        self._in_order: Callable[..., Iterator[Images]] = partial(
            score_stream, source, batch_size=at_once, **common
        )
        self._stream: Iterator[Images] = iter(())
        self._next = (0, 0)  # epoch and step that the stream is at

    def train(
        self,
        engine: Engine,
        network: Network,
        factors: Factors,
        epoch: int,
        steps: range,
    ) -> Network:
        """Takes some steps of an epoch, a program each."""
        if self._next != (epoch, steps.start):
            local = self._epoch_of(epoch=epoch, start_step=steps.start)
            self._stream = prefetched(local, divided)
        for step in steps:
            batch = next(self._stream)
            network = engine.train_on(network, factors, epoch, step, batch)
        self._next = (epoch, steps.stop)
        return network

    def score(self, split: str) -> Iterator[Images]:
        """All images of a split, in order."""
        if not self.sizes[split]:
            return iter(())
        part = "train" if split == "validation" else split
        return prefetched(self._in_order(part, self._indices[split]), divided)


def check_batch_size(size: int, images: int) -> None:
    """Raises a ValueError that says what fits the images and the devices."""
    if size > images:
        raise ValueError(
            f"--batch-size is {size}; expected at most {images}, the number of training "
            "images"
        )
    if size % jax.device_count():
        raise ValueError(
            f"--batch-size is {size}; expected a multiple of {jax.device_count()}, the "
            "number of devices"
        )


def scored_at_once(most: int = SCORED_AT_ONCE) -> int:
    """Images of a batch to score: about `most`, the same number on every device."""
    devices = jax.device_count()
    return max(most // devices, 1) * devices


def batches_of(images: Images, size: int) -> Iterator[Images]:
    """All images in batches of one size, the last filled up with images labelled -1.

    >>> images = Images(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3, dtype=np.int32))
    >>> [batch.labels.tolist() for batch in batches_of(images, 2)]
    [[0, 1], [2, -1]]
    """
    for start in range(0, len(images.labels), size):
        pixels, labels = (np.asarray(x[start : start + size]) for x in images)
        missing = size - len(labels)
        yield Images(
            np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)]),
            np.pad(labels, (0, missing), constant_values=-1),
        )
