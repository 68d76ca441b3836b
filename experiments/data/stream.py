"""Images of any size in batches of one size, read by worker processes of Grain.

Every process of a run gets its own rows of each batch. What is in a batch depends neither
on the number of processes nor on that of workers, nor on where a stream starts.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grain
import numpy as np

from experiments.data.images import Images
from experiments.data.pictures import central_box, cut, random_box, size_of
from experiments.data.source import Examples, Picture, Source
from experiments.data.workers import in_workers

# In place of an image's index, where a batch has no more images.
NONE = -1

Indices = Sequence[int] | np.ndarray
Batch = TypeVar("Batch")


def train_stream(
    source: Source,
    indices: Indices,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    augment: bool = True,
    **processes: int,
) -> Iterator[Images]:
    """Training images of an epoch in random order; those left over at its end sit it out.

    If they are to `augment`, images are cut out and mirrored at random, else their middle
    is cut out. The first `start_step` batches are left out. `processes` are as `batches`
    takes them.
    """
    steps = len(indices) // batch_size
    order = np.random.default_rng((seed, epoch)).permutation(indices)
    order = order[start_step * batch_size : steps * batch_size]
    read = _Read(source.splits["train"], image_size, (seed, epoch) if augment else None)
    return batches(read, order, batch_size, **processes)


def score_stream(
    source: Source,
    split: str,
    indices: Indices,
    *,
    batch_size: int,
    image_size: int,
    **processes: int,
) -> Iterator[Images]:
    """The middle of every image once, in order; the last batch is filled up.

    Every process gets as many batches. Where there are no more images, they are black and
    their labels -1.
    """
    missing = -len(indices) % batch_size
    order = np.pad(np.asarray(indices, int), (0, missing), constant_values=NONE)
    read = _Read(source.splits[split], image_size, None)
    return batches(read, order, batch_size, **processes)


def batches(
    read: Callable[[int], Images],
    order: np.ndarray,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Images]:
    """This process's rows of batches of the images in that order.

    `batch_size` divides their number, and is divided by that of the run's processes.
    `workers` are the processes that read and decode, 0 for none but this one.
    """
    rows = batch_size // process_count
    own = order.reshape(-1, process_count, rows)[:, process_index].ravel()
    # A worker makes whole batches, which are then the same for any number of workers.
    return in_workers(grain.MapDataset.source(own).map(read).batch(rows), workers)


def prefetched(
    iterator: Iterator[Images], put: Callable[[Images], Batch], depth: int = 2
) -> Iterator[Batch]:
    """Puts `depth` batches, 1 or more, on the device before the first is needed.

    `put` starts the transfer of a batch, and does not wait for it.

    >>> list(prefetched(iter([1, 2, 3]), lambda batch: 10 * batch))
    [10, 20, 30]
    """
    ahead: deque[Batch] = deque()
    for batch in iterator:
        ahead.append(put(batch))
        if len(ahead) == depth:
            yield ahead.popleft()
    yield from ahead


@dataclass(frozen=True)
class _Read:
    """An image and its label by index; random if there is a seed, else its middle."""

    examples: Examples
    size: int
    seed: tuple[int, ...] | None

    def __call__(self, index: int) -> Images:
        if index == NONE:
            black = np.zeros((self.size, self.size, self.examples.channels), np.uint8)
            return Images(black, np.int32(-1))

        def part(picture: Picture) -> np.ndarray:
            size, rest = size_of(picture), (self.size, self.examples.channels)
            if self.seed is None:
                return cut(picture, central_box(*size), *rest)
            generator = np.random.default_rng((*self.seed, index))
            image = cut(picture, random_box(generator, *size), *rest)
            return image[:, ::-1] if generator.random() < 0.5 else image

        ((image, label),) = self.examples.read([index], part)
        return Images(image, np.int32(label))
