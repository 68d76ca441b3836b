"""Batches of images of any size, in this process."""

import numpy as np
import pytest

from experiments.data.own import from_splits
from experiments.data.stream import prefetched, score_stream, train_stream
from tests.experiments.data.data_cases import examples

COUNT = 23
OPTIONS = {"batch_size": 4, "image_size": 6, "seed": 3, "epoch": 1}


def source(images, test=None):
    train, test = (
        [{"image": image, "label": i % 3} for i, image in enumerate(part)]
        for part in (images, images[:1] if test is None else test)
    )
    given = {"train": train, "test": test, "class_names": "abc"}
    return from_splits("images", given, "images")


@pytest.fixture(scope="module")
def plain():
    """Images of one colour, their index, by which one knows them whatever is cut out."""
    shapes = np.random.default_rng(0).integers(5, 30, (COUNT, 2))
    return source([np.full((*x, 3), i, np.uint8) for i, x in enumerate(shapes)])


@pytest.fixture(scope="module")
def noise():
    """Images in which every cut differs."""
    images, _ = examples(10)
    return source(np.kron(images, np.ones((1, 3, 3, 1), np.uint8)), images[:3])


def numbers(batches):
    """Which images of the plain ones are in each batch."""
    found = []
    for images, _ in batches:
        assert (np.ptp(images.astype(int), axis=(1, 2, 3)) == 0).all()
        found.append(images[:, 0, 0, 0].tolist())
    return found


def test_an_epoch_has_whole_batches_of_the_chosen_images_each_once(plain):
    chosen = np.arange(1, COUNT, 2)  # 11 images: 2 batches of 4
    batches = list(train_stream(plain, chosen, **OPTIONS))
    assert [batch.images.shape for batch in batches] == [(4, 6, 6, 3)] * 2
    assert batches[0].images.dtype == np.uint8 and batches[0].labels.dtype == np.int32
    seen = np.concatenate(numbers(batches))
    assert len({*seen} & {*chosen}) == 8
    labels = np.concatenate([batch.labels for batch in batches])
    np.testing.assert_array_equal(labels, seen % 3)


def test_the_order_is_of_the_seed_and_the_epoch_and_all_come_in_time(plain):
    def order(**options):
        return numbers(train_stream(plain, range(COUNT), **{**OPTIONS, **options}))

    assert order() == order()
    orders = [order(), order(seed=4), order(epoch=2), order(seed=1, epoch=3)]
    assert len({str(one) for one in orders}) == 4
    seen = {number for epoch in range(6) for row in order(epoch=epoch) for number in row}
    assert seen == set(range(COUNT))


@pytest.mark.parametrize("augment", [True, False])
def test_a_stream_may_start_later_and_be_shared_by_processes(noise, augment):
    def stream(**options):
        options = {**OPTIONS, "augment": augment, **options}
        return list(train_stream(noise, range(10), **options))

    whole = stream()
    for start in range(3):
        np.testing.assert_equal(stream(start_step=start), whole[start:])
    parts = [stream(process_index=i, process_count=2) for i in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        together = [np.concatenate(x) for x in zip(*halves, strict=True)]
        np.testing.assert_equal(together, list(batch))


def test_an_image_is_cut_anew_in_each_epoch_but_alike_in_any_batch(noise):
    def cuts(chosen=range(10), **options):
        batches = train_stream(noise, chosen, **{**OPTIONS, "batch_size": 5, **options})
        return {image.tobytes() for batch in batches for image in batch.images}

    first, middles = cuts(), cuts(augment=False)
    assert len(first) == 10 and cuts(batch_size=1) == first > cuts(chosen=range(5))
    assert not (cuts(epoch=2) | cuts(seed=4) | middles) & first
    assert cuts(augment=False, epoch=2) == middles


def test_half_of_the_images_are_mirrored():
    rising = np.zeros((30, 40, 3), np.uint8)
    rising[:] = np.arange(40)[:, None] * 6
    options = {**OPTIONS, "batch_size": 100}
    (batch,) = train_stream(source([rising] * 100), range(100), **options)
    steps = np.diff(batch.images[..., 0].astype(int), axis=2)
    upwards, downwards = (steps > 0).all((1, 2)), (steps < 0).all((1, 2))
    assert (upwards | downwards).all()
    assert 25 < upwards.sum() < 75


@pytest.mark.parametrize("count", [8, 9, 1])
def test_every_image_is_scored_once_in_order(plain, count):
    chosen = np.random.default_rng(0).permutation(COUNT)[:count]
    options = {"batch_size": 4, "image_size": 5, "process_count": 2}
    parts = [
        list(score_stream(plain, "train", chosen, process_index=i, **options))
        for i in range(2)
    ]
    assert len(parts[0]) == len(parts[1]) == -(-count // 4)
    halves = [half for pair in zip(*parts, strict=True) for half in pair]
    assert {half.images.shape for half in halves} == {(2, 5, 5, 3)}
    seen = np.concatenate(numbers(halves))
    labels = np.concatenate([half.labels for half in halves])
    np.testing.assert_array_equal(seen[:count], chosen)
    np.testing.assert_array_equal(labels[:count], chosen % 3)
    assert (seen[count:] == 0).all() and (labels[count:] == -1).all()


def test_the_middle_of_an_image_is_scored(noise):
    (batch,) = score_stream(noise, "test", [1], batch_size=1, image_size=7)
    image, _ = noise.splits["test"][1]
    # A square of 7 pixels, seven eighths of 8 rows: half a pixel from the first row, and
    # one pixel from the first of 9 columns.
    expected = (image[:-1].astype(float) + image[1:])[:, 1:8] / 2
    np.testing.assert_allclose(batch.images[0], expected, atol=1)


def test_batches_are_put_ahead_of_use():
    put = []
    ahead = prefetched(iter(range(5)), lambda batch: put.append(batch) or -batch, depth=3)
    assert put == []
    assert [next(ahead), put] == [0, [0, 1, 2]]
    assert list(ahead) == [-1, -2, -3, -4]
