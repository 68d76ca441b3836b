"""Batches of images of any size, in this process."""

import numpy as np
import pytest

from experiments.data.open import open_source
from experiments.data.stream import prefetched, score_stream, train_stream
from tests.experiments.data.data_cases import encoded, examples, write_folder

COUNT = 23
OPTIONS = {"batch_size": 4, "image_size": 6, "seed": 3, "epoch": 1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Images of one colour, by which one knows them whatever is cut out."""
    generator = np.random.default_rng(0)
    files = {}
    for index in range(COUNT):
        shape = (*generator.integers(5, 30, 2), 3)
        files[f"train/{index % 3}/{index:02d}.png"] = np.full(shape, index, np.uint8)
    files["test/0/0.png"] = np.zeros((8, 8, 3), np.uint8)
    root = write_folder(tmp_path_factory.mktemp("plain"), files)
    return open_source(str(root))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Images in which every cut differs."""
    images, _ = examples(10)
    files = {
        f"train/{i % 2}/{i}.png": np.kron(image, np.ones((3, 3, 1), np.uint8))
        for i, image in enumerate(images)
    }
    files |= {f"test/0/{i}.png": x for i, x in enumerate(images[:3])}
    root = write_folder(tmp_path_factory.mktemp("noise"), files)
    return open_source(str(root))


def numbers(batches):
    """Which images of the plain ones are in each batch."""
    found = []
    for images, _ in batches:
        assert (np.ptp(images.astype(int), axis=(1, 2, 3)) == 0).all()
        found.append(images[:, 0, 0, 0].tolist())
    return found


def index_of(source):
    """Index of each plain image by its number."""
    train = source.examples("train")
    return {int(train[i][0][0, 0, 0]): i for i in range(len(train))}


def assert_same(streams, others):
    for one, other in zip(streams, others, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_an_epoch_has_whole_batches_of_the_chosen_images_each_once(plain):
    chosen = np.arange(1, COUNT, 2)  # 11 images: 2 batches of 4
    batches = list(train_stream(plain, chosen, **OPTIONS))
    assert [batch.images.shape for batch in batches] == [(4, 6, 6, 3)] * 2
    assert batches[0].images.dtype == np.uint8 and batches[0].labels.dtype == np.int32
    seen = np.concatenate(numbers(batches))
    index = index_of(plain)
    assert len({index[number] for number in seen} & set(chosen)) == 8
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
def test_a_stream_that_starts_later_goes_on_alike(noise, augment):
    options = {**OPTIONS, "batch_size": 3, "augment": augment}
    whole = list(train_stream(noise, range(10), **options))
    for start in range(5):
        later = train_stream(noise, range(10), start_step=start, **options)
        assert_same(later, whole[start:])


def test_processes_share_each_batch(noise):
    whole = list(train_stream(noise, range(10), **OPTIONS))
    parts = [
        list(train_stream(noise, range(10), process_index=i, process_count=2, **OPTIONS))
        for i in range(2)
    ]
    for batch, *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(
            batch.images, np.concatenate([half.images for half in halves])
        )
        np.testing.assert_array_equal(
            batch.labels, np.concatenate([half.labels for half in halves])
        )


def test_an_image_is_cut_anew_in_each_epoch_but_alike_in_any_batch(noise):
    def cuts(chosen=range(10), **options):
        batches = train_stream(noise, chosen, **{**OPTIONS, "batch_size": 5, **options})
        return {image.tobytes() for batch in batches for image in batch.images}

    first = cuts()
    assert len(first) == 10
    assert cuts(batch_size=1) == first
    assert cuts(chosen=range(5)) < first
    assert not cuts(epoch=2) & first
    assert not cuts(seed=4) & first
    middles = cuts(augment=False)
    assert cuts(augment=False, epoch=2) == middles and not middles & first


def test_half_of_the_images_are_mirrored(tmp_path):
    rising = np.zeros((50, 40, 3), np.uint8)
    rising[:] = np.arange(40)[:, None] * 6
    files = {f"train/{i % 2}/{i:03d}.png": rising for i in range(100)}
    files["test/0/0.png"] = rising
    source = open_source(str(write_folder(tmp_path, files)))
    (batch,) = train_stream(source, range(100), **{**OPTIONS, "batch_size": 100})
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
    index = index_of(plain)
    assert [index[number] for number in seen[:count]] == chosen.tolist()
    np.testing.assert_array_equal(labels[:count], seen[:count] % 3)
    assert (seen[count:] == 0).all() and (labels[count:] == -1).all()


def test_the_middle_of_an_image_is_scored(noise):
    (batch,) = score_stream(noise, "test", [1], batch_size=1, image_size=7)
    image, _ = noise.examples("test")[1]
    # A square of 7 pixels, seven eighths of 8 rows: half a pixel from the first row, and
    # one pixel from the first of 9 columns.
    expected = (image[:-1].astype(float) + image[1:])[:, 1:8] / 2
    np.testing.assert_allclose(batch.images[0], expected, atol=1)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = encoded(image, "JPEG")
    files = {
        f"{split}/{i % 2}/{i}.jpg": image for split in ("train", "test") for i in range(3)
    }
    files["train/1/1.jpg"] = content[: len(content) // 2]
    source = open_source(str(write_folder(tmp_path, files)))
    for stream in (
        train_stream(source, range(3), **{**OPTIONS, "batch_size": 3}),
        score_stream(source, "train", range(3), batch_size=3, image_size=4),
    ):
        with pytest.raises(ValueError, match=r"/train/1/1.jpg cannot be read: .*trunc"):
            next(stream)


def test_batches_are_put_ahead_of_use():
    put = []
    ahead = prefetched(iter(range(5)), lambda batch: put.append(batch) or -batch, depth=3)
    assert put == []
    assert [next(ahead), put] == [0, [0, 1, 2]]
    assert [next(ahead), put] == [-1, [0, 1, 2, 3]]
    assert list(ahead) == [-2, -3, -4]
    assert list(prefetched(iter(range(2)), lambda batch: batch, depth=3)) == [0, 1]
