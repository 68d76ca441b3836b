"""The engine against a plain loop: one seed, one step and one image set at a time."""

from dataclasses import replace
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from experiments.data.augmentation import augmented
from experiments.data.images import Images
from experiments.fit.devices import replicated
from experiments.fit.engine import CROP, Engine, over_seeds
from experiments.fit.feeds import batches_of
from experiments.fit.optimizer import Factors, learning_rates, optimizer
from experiments.losses import Options
from experiments.models import build
from tests.library import oracle

COUNT, BATCH, CLASSES = 35, 8, 3
STEPS = COUNT // BATCH
MEAN, DEVIATION = np.array([120], np.float32), np.array([60], np.float32)
DECAY, MOMENTUM, SMOOTHING = 0.1, 0.9, 0.1
FACTORS = Factors(learning_rate=1.0, strength=0.0)


def images(count=COUNT):
    generator = np.random.default_rng(count)
    return Images(
        generator.integers(0, 256, (count, 8, 8, 1), np.uint8),
        generator.integers(0, CLASSES, count, np.int32),
    )


@cache  # compiles its programs once for all tests
def engine(model="cnn", dtype="float32", seeds=2):
    rates = learning_rates("step", 0.05, (1,), 2, STEPS)
    return Engine(
        model=build(model, classes=CLASSES, width=0.1, dtype=jnp.dtype(dtype)),
        optimizer=lambda factors: optimizer(
            "sgd", rates, MOMENTUM, DECAY, None, Options(), factors
        ),
        seeds=seeds,
        mean=MEAN,
        deviation=DEVIATION,
        label_smoothing=SMOOTHING,
    )


def begun(engine):
    start = engine.start(lambda params, _: params, images().images)
    start = jax.tree.map(np.asarray, start)
    return start, *engine.networks(replicated(start), FACTORS)


def trained(engine, network, epoch, sizes=(STEPS,)):
    """After the steps of an epoch, taken in programs of those sizes."""
    data, first = Images(*replicated(tuple(images()))), 0
    for size in sizes:
        steps = range(first, first + size)
        network = engine.train(network, FACTORS, epoch, steps, data, BATCH)
        first += size
    assert first == STEPS
    return network


def plain(model, variables, seed, epochs):
    """SGD written out, with the losses and the images right of each epoch."""
    pixels = (images().images.astype(np.float32) - MEAN) / DEVIATION
    labels = images().labels

    @jax.jit
    def value_and_slope(params, averages, pixels, labels):
        def loss(params):
            logits, updated = model.apply(
                {"params": params, **averages}, pixels, train=True, mutable=True
            )
            right = jnp.eye(CLASSES)[labels]
            chances = SMOOTHING / CLASSES + (1 - SMOOTHING) * right
            entropies = -(chances * jax.nn.log_softmax(logits)).sum(1)
            return entropies.mean(), (updated, logits)

        return jax.value_and_grad(loss, has_aux=True)(params)

    velocity = jax.tree.map(jnp.zeros_like, variables["params"])
    losses, right = np.zeros(epochs), np.zeros(epochs)
    for epoch in range(1, epochs + 1):
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        order = np.asarray(jax.random.permutation(key, COUNT))
        rate = 0.05 if epoch == 1 else 0.005
        for rows in order[: STEPS * BATCH].reshape(STEPS, BATCH):
            params = variables["params"]
            averages = {k: v for k, v in variables.items() if k != "params"}
            (loss, (updated, logits)), slope = value_and_slope(
                params, averages, pixels[rows], labels[rows]
            )
            losses[epoch - 1] += loss
            right[epoch - 1] += (np.argmax(logits, 1) == labels[rows]).sum()

            def follow(path, velocity, slope, weight):
                decays = path[-1].key == "kernel"  # no bias, no scale
                return MOMENTUM * velocity + slope + DECAY * decays * weight

            velocity = jax.tree_util.tree_map_with_path(follow, velocity, slope, params)
            params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
            variables = {**updated, "params": params}
    return variables, losses, right


def assert_close(tree, other):
    # Two orders of summation, in float32, over 8 steps.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), tree, other
    )


def assert_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def of_seed(tree, seed):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[seed], tree)


def test_all_seeds_train_as_one_by_one_in_a_plain_loop(relaxed_jax):
    together = engine()
    start, network, chosen = begun(together)
    sums = []
    for epoch in (1, 2):
        network = trained(together, network, epoch)
        sums.append((np.asarray(network.loss), np.asarray(network.right)))
        network, chosen = together.close_epoch(network, chosen, epoch, np.zeros(2))
    for seed in range(2):
        variables, losses, right = plain(together.model, of_seed(start, seed), seed, 2)
        assert_close(of_seed(network.variables, seed), dict(variables))
        np.testing.assert_allclose([loss[seed] for loss, _ in sums], losses, rtol=1e-4)
        assert [count[seed] for _, count in sums] == right.tolist()


def test_results_do_not_depend_on_how_many_steps_a_program_takes(relaxed_jax):
    one = engine()
    assert_equal(*(trained(one, begun(one)[1], 1, of) for of in ((4,), (1, 2, 1))))


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(CLASSES)(images.reshape(len(images), -1))


def test_images_on_the_device_are_augmented_anew_by_each_seed(relaxed_jax):
    one = replace(engine(), model=Linear())
    other = replace(one, augment=True)
    start = {"params": {"Dense_0": {"kernel": jnp.ones((64, 3)), "bias": jnp.ones(3)}}}
    start = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), start)
    data = Images(*replicated(tuple(images())))
    network, _ = other.networks(start, FACTORS)
    network = other.train(network, FACTORS, 3, range(1, 2), data, BATCH)
    for seed in range(2):
        key = jax.random.fold_in(jax.random.key(seed), 3)
        rows = jax.random.permutation(key, COUNT)[BATCH : 2 * BATCH]
        draw = jax.random.fold_in(key, 1)
        pixels = augmented(draw, data.images[rows], CROP)
        assert (pixels != data.images[rows]).any()
        batch = device_batch(Images(pixels, data.labels[rows]))
        expected, _ = one.networks(start, FACTORS)
        expected = one.train(expected, FACTORS, 3, range(1, 2), batch)
        assert_close(of_seed(network.variables, seed), of_seed(expected.variables, seed))


def test_every_image_is_scored_once(relaxed_jax):
    one = engine("cnn-plain")
    start, *_ = begun(one)
    for count in (8, 11, 16):
        given = images(count)
        pixels = (given.images.astype(np.float32) - MEAN) / DEVIATION
        scores = one.score(replicated(start), map(device_batch, batches_of(given, 8)))
        for seed in range(2):
            guesses = np.argmax(one.model.apply(of_seed(start, seed), pixels), 1)
            right = (guesses == given.labels).sum()
            np.testing.assert_allclose(scores.accuracy[seed], 100 * right / count)
    assert np.isnan(one.score({}, [])).all()


class Votes(nn.Module):
    """Logits in half precision, of one class for all images."""

    @nn.compact
    def __call__(self, images, train=False):
        bias = self.param("bias", nn.initializers.ones, (CLASSES,))
        return (bias + jnp.zeros((len(images), 1))).astype(jnp.bfloat16)


def test_images_are_counted_exactly_in_half_precision(relaxed_jax):
    one = replace(engine(), model=Votes())
    start, given = one.start(lambda params, _: params, images().images), images(777)
    scores = one.score(start, map(device_batch, batches_of(given, 777)))
    share = 100 * (given.labels == 0).mean()
    np.testing.assert_allclose(scores.accuracy, share, rtol=1e-6)
    np.testing.assert_allclose(scores.calibration, abs(share - 100 / 3), rtol=1e-3)


def test_the_calibration_error_is_by_bins_of_confidence(relaxed_jax):
    one = engine("cnn-plain")
    start, *_ = begun(one)
    start = jax.tree.map(lambda leaf: 2 * leaf, start)  # which makes it surer
    given = images(40)
    scores = one.score(replicated(start), map(device_batch, batches_of(given, 16)))
    pixels = (given.images.astype(np.float32) - MEAN) / DEVIATION
    for seed in range(2):
        logits = oracle.float64(one.model.apply(of_seed(start, seed), pixels))
        chances = scipy.special.softmax(logits, axis=1)
        confidence, guesses = chances.max(1), chances.argmax(1)
        error = 0.0
        for low in np.arange(15) / 15:
            inside = (confidence >= low) & (confidence < low + 1 / 15 + (low > 0.93))
            if inside.any():
                right = (guesses == given.labels)[inside].mean()
                error += inside.mean() * abs(right - confidence[inside].mean())
        assert 0.01 < error < 1
        np.testing.assert_allclose(scores.calibration[seed], 100 * error, rtol=1e-4)


def device_batch(batch):
    return Images(*replicated(tuple(batch)))


def test_the_best_epoch_is_chosen_and_of_equals_the_later(relaxed_jax):
    one = engine("cnn-plain")
    _, network, chosen = begun(one)
    seen = []
    for epoch, score in enumerate([(50, 70), (60, 60), (60, 10)], 1):
        network = trained(one, network, epoch)
        seen.append(jax.tree.map(np.asarray, network.variables))
        network, chosen = one.close_epoch(network, chosen, epoch, np.array(score))
        assert not np.asarray(network.loss).any() and not np.asarray(network.right).any()
    assert chosen.epoch.tolist() == [3, 1]
    assert chosen.score.tolist() == [60, 70]
    assert chosen.diverged_at.tolist() == [0, 0]
    for seed, epoch in enumerate((3, 1)):
        assert_equal(of_seed(chosen.variables, seed), of_seed(seen[epoch - 1], seed))


def test_a_seed_that_diverges_leaves_the_others_as_they_are(relaxed_jax):
    one = engine("cnn-plain")
    start, *_ = begun(one)
    spoilt = jax.tree.map(np.array, start)
    spoilt["params"]["Dense_0"]["bias"][1] = np.inf
    ends = []
    for variables in (start, spoilt):
        network, chosen = one.networks(replicated(variables), FACTORS)
        for epoch in (1, 2):
            network = trained(one, network, epoch)
            network, chosen = one.close_epoch(network, chosen, epoch, np.full(2, epoch))
        ends.append((network, chosen))
    (good, good_chosen), (bad, bad_chosen) = ends
    assert good_chosen.diverged_at.tolist() == [0, 0]
    assert bad_chosen.diverged_at.tolist() == [0, 1]
    assert bad_chosen.epoch.tolist() == [2, 0]
    for name in ("variables", "optimizer"):
        assert_equal(of_seed(getattr(good, name), 0), of_seed(getattr(bad, name), 0))


def test_bfloat16_is_computed_in_and_the_weights_stay_float32(relaxed_jax):
    losses = []
    for one in (engine("cnn-plain", "bfloat16"), engine("cnn-plain")):
        network = trained(one, begun(one)[1], 1)
        kinds = {x.dtype for x in jax.tree.leaves((network.variables, network.optimizer))}
        assert kinds == {jnp.dtype("float32"), jnp.dtype("int32")}
        losses.append(np.asarray(network.loss))
    assert (losses[0] != losses[1]).all()
    np.testing.assert_allclose(*losses, rtol=0.05)  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    ("backend", "weights", "at_once"),
    [("cpu", 100, False), ("gpu", 100, True), ("gpu", 10**7, False)],
)
def test_seeds_are_mapped_over_on_every_device(backend, weights, at_once, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    tree, number = {"a": np.arange(6.0).reshape(2, 3)}, np.array([10.0, 20.0])
    mapped = over_seeds(lambda tree, number: (tree["a"].sum() + number, tree), weights)
    sums, same = mapped(tree, number)
    np.testing.assert_array_equal(sums, [13, 32])
    np.testing.assert_array_equal(same["a"], tree["a"])
    assert at_once == ("scan" not in str(jax.make_jaxpr(mapped)(tree, number)))
