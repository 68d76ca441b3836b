"""Digits; which images are trained on; their mean and deviation."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.data.images import normalized
from experiments.data.load import load, moments, select
from experiments.data.open import open_source


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


def test_digits_are_all_there_once_and_each_class_is_halved(digits):
    dataset = load(digits)
    (train, train_labels), (test, test_labels) = dataset.train, dataset.test
    assert digits.sizes == {"train": 898, "test": 899}
    assert train.shape == (898, *digits.shape) and test.shape == (899, 8, 8, 1)
    assert train.dtype == np.uint8 and train_labels.dtype == np.int32
    assert dataset.validation.images.shape == (0, 8, 8, 1)
    assert dataset.classes == 10
    counts = np.bincount(train_labels) - np.bincount(test_labels)
    assert np.abs(counts).max() <= 1
    images, labels = load_digits(return_X_y=True)
    read = np.concatenate([train, test]).reshape(-1, 64)
    labelled = np.column_stack([read, np.concatenate([train_labels, test_labels])])
    expected = np.column_stack([images, labels]).astype(int)
    assert sorted(map(tuple, labelled.astype(int))) == sorted(map(tuple, expected))


def test_a_smaller_training_set_is_part_of_the_larger_and_the_test_set_whole(digits):
    small, again, larger = (select(digits, train_size=n) for n in (100, 100, 300))
    np.testing.assert_array_equal(small.train, again.train)
    assert len(small.train) == 100 and set(small.train) < set(larger.train)
    assert (np.diff(small.train) > 0).all()
    whole, part = load(digits), load(digits, train_size=100)
    np.testing.assert_array_equal(part.train.images, whole.train.images[small.train])
    np.testing.assert_array_equal(part.train.labels, whole.train.labels[small.train])
    np.testing.assert_array_equal(part.test.labels, whole.test.labels)
    assert len(set(part.train.labels.tolist())) == 10
    np.testing.assert_allclose(part.mean, part.train.images.mean((0, 1, 2)), rtol=1e-6)


def test_validation_images_are_not_trained_on_whatever_is(digits):
    all_left, few = (select(digits, train_size=n, validation=0.2) for n in (None, 50))
    assert len(all_left.validation) == 180
    np.testing.assert_array_equal(few.validation, all_left.validation)
    assert len(few.train) == 50
    both = np.concatenate([all_left.train, all_left.validation])
    np.testing.assert_array_equal(np.sort(both), np.arange(898))
    held = load(digits, validation=0.2)
    np.testing.assert_array_equal(
        held.validation.images, load(digits).train.images[all_left.validation]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": -5}, "--train-size is -5; expected 10 .* 898"),
        ({"train_size": 9}, "--train-size is 9; expected 10 .* 898"),
        ({"train_size": 899}, "--train-size is 899; expected 10 .* 898"),
        ({"train_size": 719, "validation": 0.2}, "to 718 .*training images less those"),
        ({"validation": 0.0001}, "--validation is 0.0001, which is 0 of the 898"),
        ({"validation": 0.9999}, "--validation is 0.9999, which is 898 of the 898"),
    ],
)
def test_parts_that_the_images_cannot_have(digits, options, message):
    with pytest.raises(ValueError, match=message):
        load(digits, **options)


def test_images_of_several_sizes_are_not_loaded(digits):
    several = replace(digits, shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"several sizes; expected .* --image-size"):
        load(several)


def test_moments_are_those_of_float64_and_of_images_that_hardly_differ():
    images = np.random.default_rng(0).integers(0, 256, (1300, 5, 6, 3), np.uint8)
    images[..., 1] = 255
    images[3, 4, 5, 1] = 254
    images[..., 2] = 7
    mean, deviation = moments(images)
    assert mean.dtype == deviation.dtype == np.float32
    # One pixel of `count` is 1 less: a variance of 1/count - 1/count².
    count = 1300 * 5 * 6
    expected = images.mean((0, 1, 2)), images.std((0, 1, 2))
    np.testing.assert_allclose(mean, expected[0], rtol=1e-7)
    np.testing.assert_allclose(deviation[0], expected[1][0], rtol=1e-6)
    np.testing.assert_allclose(deviation[1], (1 / count - 1 / count**2) ** 0.5, rtol=1e-6)
    assert deviation[2] == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalized_images_are_computed_in_float32(dtype):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    mean, deviation = np.float32([125.3, 122.9, 113.9]), np.float32([1, 60, 70])
    result = jax.jit(normalized, static_argnums=3)(images, mean, deviation, dtype)
    expected = (images.astype(np.float64) - mean) / deviation
    assert result.dtype == dtype
    # In bfloat16 throughout, 125.3 would be 125.5, far off for the pixels near it.
    precision = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(result, np.float64), expected, rtol=precision, atol=1e-6
    )
