"""Training against plain loops, one seed and one step at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from experiments.classify.training import Trainer
from experiments.data.images import Dataset, Images
from experiments.data.load import moments
from experiments.fit.feeds import Resident
from experiments.fit.step import with_averages_of
from experiments.methods import METHODS
from experiments.models import MODELS

pytestmark = pytest.mark.usefixtures("quick_compilation")

STRENGTH = 0.02
BATCH_SIZE = 8


def images(count, seed=0):
    random = np.random.default_rng(seed)
    return Images(
        random.integers(0, 256, (count, 8, 8, 1), np.uint8),
        random.integers(0, 3, count, np.int32),
    )


def trainer(train=None, **options):
    train, test = train or images(23), images(10, seed=1)
    dataset = Dataset(train, images(0), test, 3, *moments(train.images))
    return Trainer(
        **{
            "model": MODELS["cnn-plain"](classes=3, width=2 / 32),
            "feed": Resident(dataset, BATCH_SIZE),
            "scored": "test",
            "seeds": 2,
            "epochs": 2,
            "learning_rate": 0.1,
            "momentum": 0.9,
            "steps": 3,
            "pairs": "adjacent",
            "preserve_norm": False,
        }
        | options
    )


def plain_training(trainer, params, seed, strength):
    """SGD written out: velocity, cosine decay, the similarity's gradient in the loss."""
    model, (pixels, labels) = trainer.model, images(23)
    test = images(10, seed=1)
    mean, deviation = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)
    train, scored = (np.float32((x - mean) / deviation) for x in (pixels, test.images))
    steps = len(labels) // BATCH_SIZE

    @jax.jit
    def gradient(params, batch, labels):
        def loss(params):
            logits = model.apply({"params": params}, batch)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
            return -chosen.mean()

        def penalty(params):
            return cs.total_similarity(params, pairs=trainer.pairs)

        value, of_loss = jax.value_and_grad(loss)(params)
        of_penalty = jax.grad(penalty)(params)
        return value, jax.tree.map(lambda a, b: a + strength * b, of_loss, of_penalty)

    velocity = jax.tree.map(jnp.zeros_like, params)
    losses, accuracies, step = [], [], 0
    for epoch in range(trainer.epochs):
        key = jax.random.fold_in(jax.random.key(seed), epoch + 1)
        order = np.asarray(jax.random.permutation(key, len(labels)))
        losses.append([])
        for first in range(0, steps * BATCH_SIZE, BATCH_SIZE):
            chosen = order[first : first + BATCH_SIZE]
            value, slope = gradient(params, train[chosen], labels[chosen])
            losses[-1].append(float(value))
            decay = 0.5 * (1 + np.cos(np.pi * step / (steps * trainer.epochs)))
            rate = np.float32(trainer.learning_rate * decay)
            velocity = jax.tree.map(
                lambda v, g: np.float32(trainer.momentum) * v + g, velocity, slope
            )
            params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
            step += 1
        logits = jax.jit(model.apply)({"params": params}, scored)
        guesses = np.asarray(logits).argmax(1)
        accuracies.append(100 * (guesses == test.labels).mean())
    return params, np.mean(losses, axis=1), accuracies


def test_all_seeds_train_as_one_by_one_in_a_plain_loop(relaxed_jax):
    shared = trainer()
    method, seen = METHODS["paper-reg"], []
    trained = shared.run(method, STRENGTH, lambda accuracies: seen.append(accuracies))
    for seed in range(2):
        start, end = (
            jax.tree.map(lambda leaf, seed=seed: leaf[seed], variables["params"])
            for variables in (trained.start, trained.end)
        )
        params, losses, accuracies = plain_training(shared, start, seed, STRENGTH)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            end,
            params,
        )
        np.testing.assert_allclose(trained.loss[seed], losses, rtol=1e-4)
        np.testing.assert_allclose(trained.accuracy[seed], accuracies, rtol=1e-5)
    np.testing.assert_array_equal(np.stack(seen, 1), trained.accuracy)
    assert trained.diverged_at.tolist() == [0, 0]


def test_a_seed_that_diverges_stays_as_it_was_and_the_others_go_on(relaxed_jax):
    alone = trainer()
    engine = alone.engine(None)
    start = engine.start(lambda params: params, alone.feed.sample)
    network, chosen = engine.networks(start, 0.0)
    for epoch in (1, 2):
        network = alone.feed.train(engine, network, 0.0, epoch, range(2))
        if epoch == 2:
            network = network._replace(loss=network.loss.at[1].set(jnp.nan))
        before = chosen
        network, chosen = engine.close_epoch(network, chosen, epoch, np.full(2, epoch))
    assert chosen.diverged_at.tolist() == [0, 2]
    assert chosen.epoch.tolist() == [2, 1]
    for leaf, earlier, trained in zip(
        *map(jax.tree.leaves, (chosen.variables, before.variables, network.variables)),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf[0], trained[0])
        np.testing.assert_array_equal(leaf[1], earlier[1])
        assert not np.array_equal(trained[1], earlier[1])


def test_running_averages_start_as_those_of_training_images(relaxed_jax):
    model = MODELS["cnn"](classes=3, width=2 / 32)
    pictures = jax.random.normal(jax.random.key(2), (9, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), pictures)
    following = jax.jit(partial(with_averages_of, model))(variables, pictures)
    jax.tree.map(np.testing.assert_array_equal, following["params"], variables["params"])
    averages = following["batch_stats"]["BatchNorm_0"]
    maps = jax.lax.conv_general_dilated(
        pictures,
        variables["params"]["Conv_0"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(averages["mean"], maps.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(averages["var"], maps.var((0, 1, 2)), rtol=1e-3)
