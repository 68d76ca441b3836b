"""The study's trainer: its seeds, what reaches its optimizer, and a plain loop."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import convsim_jax as cs
from experiments.data.images import Dataset, Images
from experiments.data.load import moments
from experiments.fit import engine
from experiments.fit.feeds import Resident
from experiments.models import build
from experiments.options import Config
from experiments.study.results import Trial
from experiments.study.settings import SEEDS_FROM, SETTINGS, TUNED_FROM, Setting
from experiments.study.training import Hyperparameters, Trainer
from tests.library import oracle

EPOCHS, BATCH, CLASSES, COUNT = 2, 8, 3, 20
STEPS = COUNT // BATCH
DECAY, MOMENTUM = 0.01, 0.9
CONFIG = Config(
    config="",
    dataset="tiny",
    model="cnn-plain",
    width=0.1,
    epochs=EPOCHS,
    batch_size=BATCH,
    momentum=MOMENTUM,
    weight_decay=DECAY,
)
SETTING = Setting("tiny", CONFIG, (0.1, 0.2), tuned=2, seeds=2)
pytestmark = pytest.mark.usefixtures(
    "quick_compilation", "relaxed_jax"
)  # Flax and optax promote


def images(count, seed):
    generator = np.random.default_rng(seed)
    return Images(
        generator.integers(0, 256, (count, 8, 8, 1), np.uint8),
        generator.integers(0, CLASSES, count, np.int32),
    )


TRAIN, VALIDATION, TEST = (images(n, n) for n in (COUNT, 9, 11))


@pytest.fixture(scope="module")
def trainer():
    """Compiles its programs once for all tests."""
    dataset = Dataset(TRAIN, VALIDATION, TEST, CLASSES, *moments(TRAIN.images))
    quickly = {"xla_backend_optimization_level": "0"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "compiler_options", lambda: quickly)
        yield Trainer(SETTING, Resident(dataset, BATCH))


def run(trainer, split, treatment, strength, rate):
    """The outcome, and the epochs that were told."""
    told = []
    outcome = trainer.run(Trial(split, treatment, strength, rate), told.append)
    assert told == [1, 2]
    return outcome


MODEL = build("cnn-plain", classes=CLASSES, width=0.1)
PIXELS = [
    np.float32((split.images - TRAIN.images.mean()) / TRAIN.images.std())
    for split in (TRAIN, VALIDATION, TEST)
]


@jax.jit
def random_weights(seed):
    sample = jnp.zeros((1, 8, 8, 1))
    return MODEL.init(jax.random.key(seed), sample)["params"]


@jax.jit
def slopes(params, strength, pixels, labels):
    """The loss, and the gradient of all that is minimised."""

    def loss(params):
        chances = jax.nn.log_softmax(MODEL.apply({"params": params}, pixels))
        return -jnp.take_along_axis(chances, labels[:, None], 1).mean()

    def other(params):
        kernels = [x for x in jax.tree.leaves(params) if x.ndim > 1]
        squares = sum((kernel**2).sum() for kernel in kernels)
        return strength * cs.total_similarity(params) + DECAY / 2 * squares

    value, slope = jax.value_and_grad(loss)(params)
    return value, jax.tree.map(jnp.add, slope, jax.grad(other)(params))


@jax.jit
def logits_of(params, pixels):
    return MODEL.apply({"params": params}, pixels)


def plain(seed, rate, strength):
    """SGD of optax on the loss and the paper's, a step at a time."""
    params = start = random_weights(seed)
    rates = optax.cosine_decay_schedule(rate, EPOCHS * STEPS)
    optimizer = optax.sgd(rates, MOMENTUM)
    update = jax.jit(optimizer.update)

    def accuracy(pixels, labels):
        guesses = np.asarray(logits_of(params, pixels)).argmax(1)
        return 100 * (guesses == labels).mean()

    state, curve = jax.jit(optimizer.init)(params), []
    for epoch in range(1, EPOCHS + 1):
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        order = np.asarray(jax.random.permutation(key, COUNT))[: STEPS * BATCH]
        losses = []
        for rows in order.reshape(STEPS, BATCH):
            loss, slope = slopes(params, strength, PIXELS[0][rows], TRAIN.labels[rows])
            updates, state = update(slope, state)
            params = optax.apply_updates(params, updates)
            losses.append(loss)
        curve.append((np.mean(losses), accuracy(PIXELS[1], VALIDATION.labels)))
    return start, params, curve, accuracy(PIXELS[2], TEST.labels)


@pytest.fixture(scope="module")
def regularized(trainer):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return run(trainer, "test", "paper-reg", 0.01, 0.2)


@pytest.mark.parametrize("place", range(2))
def test_a_test_trial_is_a_plain_loop_of_sgd(regularized, place):
    seed = SEEDS_FROM + place
    start, end, curve, accuracy = plain(seed, 0.2, 0.01)
    score = regularized.scores[place]
    assert (score.seed, score.diverged_at) == (seed, 0)
    assert score.accuracy == pytest.approx(accuracy)
    rows = [row for row in regularized.epochs if row.seed == seed]
    assert [row.epoch for row in rows] == [1, 2]
    np.testing.assert_allclose([(row.loss, row.accuracy) for row in rows], curve, 1e-4)
    for epoch, params in ((0, start), (2, end)):
        layers = [x for x in regularized.layers if (x.seed, x.epoch) == (seed, epoch)]
        assert [x.layer for x in layers] == [f"Conv_{i}/kernel" for i in range(3)]
        for row in layers:
            kernel = oracle.float64(params[row.layer.split("/")[0]]["kernel"])
            # Four digits are kept.
            assert row.norm == pytest.approx(np.linalg.norm(kernel), rel=6e-4)


def test_layers_are_measured_before_in_the_middle_and_after(regularized):
    moments = [(row.seed, row.epoch) for row in regularized.layers]
    assert moments == [
        (seed, epoch)
        for epoch in (0, 1, 2)
        for seed in (SEEDS_FROM, SEEDS_FROM + 1)
        for _ in range(3)
    ]


def test_the_same_trial_twice_is_bit_for_bit_the_same(trainer, regularized):
    other = run(trainer, "test", "paper-reg", 0.02, 0.1)
    again = run(trainer, "test", "paper-reg", 0.01, 0.2)
    assert again.epochs == regularized.epochs
    assert again.layers == regularized.layers
    assert [score[:3] for score in again.scores] == [s[:3] for s in regularized.scores]
    assert other.epochs != regularized.epochs


def test_the_learning_rate_and_the_strength_reach_the_optimizer(trainer, regularized):
    first, stronger, faster = (
        {(row.seed, row.epoch, row.layer): row.norm for row in outcome.layers}
        for outcome in (
            regularized,
            run(trainer, "test", "paper-reg", 0.05, 0.2),
            run(trainer, "test", "paper-reg", 0.01, 0.1),
        )
    )
    for place, norm in first.items():
        if place[1] == 0:
            assert stronger[place] == faster[place] == norm
        else:
            assert stronger[place] < norm
            assert faster[place] != norm


def test_what_diverged_is_empty_from_its_epoch_on(trainer):
    outcome = run(trainer, "test", "paper-reg", 0.01, 1e30)
    assert [score.diverged_at for score in outcome.scores] == [1, 1]
    assert np.isnan([score.accuracy for score in outcome.scores]).all()
    assert np.isnan([(row.loss, row.accuracy) for row in outcome.epochs]).all()
    starts = [row.before for row in outcome.layers if row.epoch == 0]
    assert np.isfinite(starts).all()


def test_what_chooses_has_other_seeds_and_is_scored_on_held_out_images(trainer):
    outcome = run(trainer, "validation", "none", 0.0, 0.2)
    assert [score.seed for score in outcome.scores] == [TUNED_FROM, TUNED_FROM + 1]
    assert (outcome.epochs, outcome.layers) == ([], [])
    for score in outcome.scores:
        *_, curve, _ = plain(score.seed, 0.2, 0.0)
        assert score.accuracy == pytest.approx(curve[-1][1])


@pytest.mark.parametrize("name", SETTINGS)
def test_no_seed_that_chooses_is_reported(name):
    setting = SETTINGS[name]
    tuned = range(TUNED_FROM, TUNED_FROM + setting.tuned)
    reported = range(SEEDS_FROM, SEEDS_FROM + setting.seeds)
    assert not set(tuned) & set(reported)
    assert setting.tuned >= 2 and setting.seeds >= 5


# The optimizer alone, on gradients that are given.
WEIGHTS = {
    "Conv_0": {
        "kernel": np.random.default_rng(0).normal(size=(3, 3, 1, 2)).astype(np.float32),
        "bias": np.ones(2, np.float32),
    }
}
RATE, STRENGTH = 0.05, 0.3
# The gradient of the one is the kernel itself; the other is the paper's loss.
COUPLED, DECOUPLED = "decay", "paper-decoupled-reg"


def decays(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def adamw(rates):
    return optax.adamw(rates, weight_decay=DECAY, mask=decays)


def sgd(momentum):
    def of(rates):
        return optax.chain(
            optax.add_decayed_weights(DECAY, decays), optax.sgd(rates, momentum)
        )

    return of


@pytest.mark.parametrize(
    ("kind", "momentum", "reference", "treatment"),
    [
        ("sgd", 0.9, sgd(0.9), DECOUPLED),
        ("sgd", 0.0, sgd(None), COUPLED),
        ("adamw", 0.9, adamw, "none"),
        ("adamw", 0.9, adamw, COUPLED),
        ("adamw", 0.9, adamw, DECOUPLED),
    ],
)
def test_optimizers_are_those_of_optax(kind, momentum, reference, treatment):
    """Coupled, a regularizer is part of the loss; decoupled, a step of its own beside."""
    config = dataclasses.replace(CONFIG, momentum=momentum)
    setting = dataclasses.replace(SETTING, config=config, optimizer=kind)
    ours = Trainer(setting, SimpleNamespace(steps=STEPS))._optimizer(
        treatment, Hyperparameters(RATE, STRENGTH)
    )
    rates = optax.cosine_decay_schedule(RATE, EPOCHS * STEPS)
    theirs = reference(rates)

    def slope(params):
        if treatment == COUPLED:
            return jax.tree.map(lambda leaf: leaf * (leaf.ndim == 4), params)
        return jax.grad(cs.total_similarity)(params)

    @jax.jit
    def both(params, state, expected, other, number):
        given = jax.tree.map(lambda leaf: jnp.cos(leaf + number), WEIGHTS)
        updates, state = ours.update(given, state, params)
        added = jax.tree.map(lambda leaf: STRENGTH * leaf, slope(expected))
        if treatment == COUPLED:
            given = jax.tree.map(jnp.add, given, added)
        follow, other = theirs.update(given, other, expected)
        if treatment == DECOUPLED:
            follow = jax.tree.map(lambda u, s: u - rates(number) * s, follow, added)
        apply = optax.apply_updates
        return apply(params, updates), state, apply(expected, follow), other

    params = expected = WEIGHTS
    state, other = ours.init(params), theirs.init(expected)
    for number in range(3):
        params, state, expected, other = both(params, state, expected, other, number)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        params,
        expected,
    )


def test_what_is_decoupled_does_not_enter_the_momentum():
    config = dataclasses.replace(CONFIG, weight_decay=0.0)
    setting = dataclasses.replace(SETTING, config=config)
    trainer = Trainer(setting, SimpleNamespace(steps=STEPS))
    zeros = jax.tree.map(np.zeros_like, WEIGHTS)
    moved = {}
    for name in (COUPLED, DECOUPLED):
        optimizer = trainer._optimizer(name, Hyperparameters(RATE, STRENGTH))
        start = optimizer.init(WEIGHTS)
        updates, state = jax.jit(optimizer.update)(zeros, start, WEIGHTS)
        assert np.any(updates["Conv_0"]["kernel"])
        trace = optax.tree.get(state, "trace")
        moved[name] = any(np.any(leaf) for leaf in jax.tree.leaves(trace))
    assert moved == {COUPLED: True, DECOUPLED: False}
