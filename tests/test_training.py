"""Training against plain loops, one seed and one step at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from experiments.classify.training import (
    State,
    Trainer,
    with_averages_of,
)
from experiments.data.images import Images
from experiments.measurement import accuracy, batches_of
from experiments.methods import METHODS
from experiments.models import MODELS

STRENGTH = 0.02


def images(count, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return Images(
        np.asarray(jax.random.normal(keys[0], (count, 8, 8, 1))),
        np.asarray(jax.random.randint(keys[1], (count,), 0, 3)),
    )


def trainer(model="cnn-plain", **options):
    return Trainer(
        **{
            "model": MODELS[model](classes=3, width=2 / 32),
            "train": images(23),
            "test": images(10, seed=1),
            "seeds": 2,
            "epochs": 2,
            "batch_size": 5,
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
    model, (train, labels) = trainer.model, trainer.train
    steps = len(labels) // trainer.batch_size

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
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        order = np.asarray(jax.random.permutation(key, len(labels)))
        losses.append([])
        for first in range(0, steps * trainer.batch_size, trainer.batch_size):
            chosen = order[first : first + trainer.batch_size]
            value, slope = gradient(params, train[chosen], labels[chosen])
            losses[-1].append(float(value))
            decay = 0.5 * (1 + np.cos(np.pi * step / (steps * trainer.epochs)))
            rate = np.float32(trainer.learning_rate * decay)
            velocity = jax.tree.map(
                lambda v, g: np.float32(trainer.momentum) * v + g, velocity, slope
            )
            params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
            step += 1
        logits = jax.jit(model.apply)({"params": params}, trainer.test.images)
        guesses = np.asarray(logits).argmax(1)
        accuracies.append(100 * (guesses == trainer.test.labels).mean())
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


@pytest.mark.parametrize(("count", "size"), [(11, 4), (8, 4), (3, 4)])
def test_accuracy_counts_every_image_once(count, size):
    class Echo:
        """Takes the first pixels of an image for its logits."""

        def apply(self, variables, images):
            return images[:, 0, :3, 0]

    pictures = images(count).images
    wrong = np.arange(count) % 3 == 1  # the last of 11 and of 8, one of 3
    labels = (pictures[:, 0, :3, 0].argmax(axis=1) + wrong) % 3
    batches = batches_of(Images(pictures, labels), size)
    assert batches.labels.shape == (-(-count // size), min(size, count))
    percentage = accuracy(Echo(), {}, batches)
    np.testing.assert_allclose(percentage, 100 * (~wrong).sum() / count, rtol=1e-6)


def test_a_seed_that_diverges_stops_and_the_others_go_on(relaxed_jax):
    alone = trainer(seeds=3)
    seeds, zero = jnp.arange(3), jnp.float32(0)
    variables = alone._random(seeds)
    optimizer = jax.vmap(alone._optimizer(None, 0.0).init)(variables["params"])
    spoilt = jax.tree.map(lambda leaf: leaf, variables)
    dense = spoilt["params"]["Dense_0"]
    dense["bias"] = dense["bias"].at[1].set(jnp.inf)
    diverged_before = jnp.array([0, 0, 4], jnp.int32)
    data = jax.tree.map(jnp.asarray, alone.train), batches_of(alone.test)
    arguments = (seeds, jnp.int32(6), zero, *data)
    epoch = jax.jit(lambda state: alone._epoch(None, state, *arguments))
    state, loss, percentage = epoch(State(spoilt, optimizer, diverged_before))
    good, good_loss, _ = epoch(State(variables, optimizer, jnp.zeros(3, jnp.int32)))
    assert state.diverged_at.tolist() == [0, 7, 4]
    assert good.diverged_at.tolist() == [0, 0, 0]
    assert np.isnan(loss).tolist() == np.isnan(percentage).tolist() == [False, True, True]
    assert loss[0] == good_loss[0]
    for leaf, before, trained in zip(
        *(jax.tree.leaves(tree) for tree in (state.variables, spoilt, good.variables)),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf[0], trained[0])
        np.testing.assert_array_equal(leaf[1:], before[1:])
        assert not np.array_equal(trained[2], before[2])


def test_running_averages_start_as_those_of_training_images(relaxed_jax):
    model, pictures = MODELS["cnn"](classes=3, width=2 / 32), images(9).images
    keys = jax.random.split(jax.random.key(0), 2)
    variables = jax.jit(jax.vmap(lambda key: model.init(key, pictures)))(keys)
    following = jax.jit(partial(with_averages_of, model))(variables, pictures)
    jax.tree.map(np.testing.assert_array_equal, following["params"], variables["params"])
    averages = following["batch_stats"]["BatchNorm_0"]
    for seed in range(2):
        maps = jax.lax.conv_general_dilated(
            pictures,
            variables["params"]["Conv_0"]["kernel"][seed],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        mean, variance = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
        np.testing.assert_allclose(averages["mean"][seed], mean, atol=1e-5)
        np.testing.assert_allclose(averages["var"][seed], variance, rtol=1e-3)
