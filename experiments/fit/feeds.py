"""Where a run's images come from: all on the device, or streamed from disk."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import jax
import numpy as np

from experiments.data.images import Dataset, Images
from experiments.data.load import Selection
from experiments.data.source import Source
from experiments.data.stream import prefetched, score_stream, train_stream
from experiments.fit.devices import divided, replicated, rows_of_this_process

SCORED_AT_ONCE = 512
SAMPLE = 256
SAMPLE_BYTES = 1 << 26  # at most, of streamed images
# Of ImageNet's pixels, 0 to 255: what streamed images are normalised by, as usual; by
# the means of these where they are not red, green and blue.
IMAGENET_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
IMAGENET_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


class Feed(ABC):
    """The images of a run.

    Attributes:
        classes: number of classes.
        shape: of an image, `(height, width, channels)`.
        sizes: numbers of images, `"train"`, `"validation"` and `"test"`.
        batch_size: images a step.
        steps: of an epoch.
        mean, deviation: of each channel.
        sample: some images of training, uint8.
        drawn: how many of its images the engine draws for each step; None if these come
            in batches.
    """

    mean: np.ndarray
    deviation: np.ndarray
    sample: np.ndarray
    drawn: int | None = None

    def __init__(
        self,
        classes: int,
        shape: tuple[int, int, int],
        sizes: dict[str, int],
        batch_size: int,
    ):
        check_batch_size(batch_size, sizes["train"])
        self.classes, self.shape, self.sizes = classes, shape, sizes
        self.steps = sizes["train"] // batch_size
        self.batch_size = batch_size

    @abstractmethod
    def parts(self, epoch: int, steps: range) -> Iterator[tuple[range, Images]]:
        """Some steps of an epoch, and the images that `Engine.train` takes for them."""

    @abstractmethod
    def score(self, split: str) -> Iterator[Images]:
        """All images of `"validation"` or `"test"`, divided among the devices."""


class Resident(Feed):
    """All training images on every device; an epoch's steps are one program."""

    def __init__(self, dataset: Dataset, batch_size: int):
        splits = ("train", "validation", "test")
        sizes = {split: len(getattr(dataset, split).labels) for split in splits}
        shape = dataset.train.images.shape[1:]
        super().__init__(dataset.classes, shape, sizes, batch_size)
        self._dataset = dataset
        self.mean, self.deviation = dataset.mean, dataset.deviation
        self.sample = np.asarray(dataset.train.images[:SAMPLE])
        self.drawn = batch_size
        self._images = Images(*replicated(tuple(dataset.train)))

    def parts(self, epoch: int, steps: range) -> Iterator[tuple[range, Images]]:
        """See `Feed`."""
        yield steps, self._images

    def score(self, split: str) -> Iterator[Images]:
        """See `Feed`."""
        for batch in batches_of(getattr(self._dataset, split), scored_at_once()):
            rows = rows_of_this_process(len(batch.labels))
            yield divided(Images(*(x[rows] for x in batch)))


class Streamed(Feed):
    """Images read, cut and flipped by worker processes; a program a step."""

    def __init__(
        self,
        source: Source,
        selection: Selection,
        batch_size: int,
        image_size: int,
        workers: int,
        augment: bool,
    ):
        self._indices = {"test": np.arange(source.sizes["test"]), **selection._asdict()}
        sizes = {split: len(chosen) for split, chosen in self._indices.items()}
        shape = (image_size, image_size, source.shape[-1])
        super().__init__(source.classes, shape, sizes, batch_size)
        self._source, self._augment = source, augment
        self.mean, self.deviation = (
            of if shape[-1] == 3 else np.full(shape[-1:], of.mean())
            for of in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        sample = selection.train[: min(SAMPLE, max(SAMPLE_BYTES // math.prod(shape), 1))]
        first = score_stream(
            source, "train", sample, batch_size=len(sample), image_size=image_size
        )
        self.sample = next(first).images
        self._reading = {
            "image_size": image_size,
            "workers": workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }
        self._stream: Iterator[Images] = iter(())
        self._next = (0, 0)  # epoch and step that the stream is at

    def parts(self, epoch: int, steps: range) -> Iterator[tuple[range, Images]]:
        """See `Feed`."""
        if self._next != (epoch, steps.start):
            local = train_stream(
                self._source,
                self._indices["train"],
                batch_size=self.batch_size,
                seed=0,
                epoch=epoch,
                start_step=steps.start,
                augment=self._augment,
                **self._reading,
            )
            self._stream = prefetched(local, divided)
        self._next = (epoch, steps.stop)
        for step in steps:
            yield range(step, step + 1), next(self._stream)

    def score(self, split: str) -> Iterator[Images]:
        """See `Feed`."""
        if not self.sizes[split]:
            return iter(())
        local = score_stream(
            self._source,
            "train" if split == "validation" else split,
            self._indices[split],
            batch_size=scored_at_once(self.batch_size),
            **self._reading,
        )
        return prefetched(local, divided)


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
