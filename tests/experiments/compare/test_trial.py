"""The trainer: its seeds, what reaches its optimizer, and a plain loop."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import convsim_jax as cs
from experiments.compare.results import Trial
from experiments.compare.settings import SEEDS_FROM, TUNED_FROM, Setting
from experiments.compare.trial import Trainer
from experiments.data.corruption import CORRUPTIONS, corrupted
from experiments.data.images import Dataset, Images
from experiments.data.load import moments
from experiments.fit.feeds import Resident, scored_at_once
from experiments.models import build
from experiments.options import Config
from tests.library import oracle

EPOCHS, BATCH, CLASSES, COUNT = 2, 8, 3, 20
STEPS = COUNT // BATCH
DECAY, MOMENTUM = 0.01, 0.9
CONFIG = Config(
    config="",
    dataset="tiny",
    model="cnn-plain",
    width=0.1,
    validation=0.3,
    epochs=EPOCHS,
    batch_size=BATCH,
    momentum=MOMENTUM,
    weight_decay=DECAY,
)
SETTING = Setting(
    "tiny", CONFIG, (0.1, 0.2), decays=(0.1, 0.3), seeds=2, fewer={"decay": 1}
)
pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax and optax promote


def images(count, seed):
    generator = np.random.default_rng(seed)
    return Images(
        generator.integers(0, 256, (count, 8, 8, 1), np.uint8),
        generator.integers(0, CLASSES, count, np.int32),
    )


TRAIN, VALIDATION, TEST = (images(n, n) for n in (COUNT, 9, 11))


def open_feed(validation):
    """Images of which some are held out, or none."""
    held_out = VALIDATION if validation else Images(*(x[:0] for x in VALIDATION))
    dataset = Dataset(TRAIN, held_out, TEST, CLASSES, *moments(TRAIN.images))
    return Resident(dataset, BATCH)


@pytest.fixture(scope="module")
def trainer():
    """Compiles its programs once for all tests."""
    return Trainer(SETTING, open_feed)


def run(trainer, split, method, strength, rate, decay=0.0, seeds=None):
    """The outcome, and the epochs that were told."""
    told = []
    trial = Trial(split, method, strength, rate, decay)
    seeds = seeds or SETTING.seeds_of(split, method)
    outcome = trainer.run(trial, seeds, lambda epoch, accuracy: told.append(epoch))
    assert told == [1, 2][: len(told)]
    return outcome


MODEL = build("cnn-plain", classes=CLASSES, channels=1, width=0.1)
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
            assert 0 < row.effective_before <= 1 and 0 <= row.effective_after <= 1


@pytest.mark.parametrize("place", range(2))
def test_a_seed_that_is_trained_alone_is_what_it_is_among_others(
    trainer, regularized, place
):
    seed = SEEDS_FROM + place
    alone = run(trainer, "test", "paper-reg", 0.01, 0.2, seeds=range(seed, seed + 1))
    (score,), together = alone.scores, regularized.scores[place]
    assert score.seed == together.seed == seed
    for name in ("accuracy", "calibration", "noise", "blur"):
        assert getattr(score, name) == pytest.approx(getattr(together, name), rel=1e-3)
    rows = [row for row in regularized.epochs if row.seed == seed]
    np.testing.assert_allclose(
        [row[2:] for row in alone.epochs], [row[2:] for row in rows], rtol=1e-4
    )


def test_what_is_reported_is_scored_under_noise_and_blur(regularized):
    _, params, *_ = plain(SEEDS_FROM, 0.2, 0.01)
    padding = [(0, scored_at_once() - len(TEST.labels)), *3 * [(0, 0)]]
    batch = Images(np.pad(TEST.images, padding), TEST.labels)
    score = regularized.scores[0]
    for name, kinds in CORRUPTIONS.items():
        scores = []
        for kind in kinds:
            (changed,) = corrupted([batch], kind)
            images = changed.images[: len(TEST.labels)]
            pixels = np.float32((images - TRAIN.images.mean()) / TRAIN.images.std())
            guesses = np.asarray(logits_of(params, pixels)).argmax(1)
            scores.append(100 * (guesses == TEST.labels).mean())
        assert getattr(score, name) == pytest.approx(np.mean(scores), abs=1e-3)


def test_what_is_reported_has_an_expected_calibration_error(regularized):
    """By plain loops: 15 bins of confidence, weighted by how many images they hold."""
    _, params, *_ = plain(SEEDS_FROM, 0.2, 0.01)
    logits = oracle.float64(logits_of(params, PIXELS[2]))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    bins = [[] for _ in range(15)]
    for chance, label in zip(chances, TEST.labels, strict=True):
        hit = float(chance.argmax() == label)
        bins[min(int(chance.max() * 15), 14)].append((chance.max(), hit))
    gaps = [abs(np.sum(np.array(one)[:, 0] - np.array(one)[:, 1])) for one in bins if one]
    expected = 100 * sum(gaps) / len(TEST.labels)
    score = regularized.scores[0]
    assert score.calibration == pytest.approx(expected, abs=1e-2)
    assert abs(expected - score.accuracy) > 1  # which could be mistaken for it


def test_layers_are_measured_before_in_the_middle_and_after(regularized):
    moments = [(row.seed, row.epoch) for row in regularized.layers]
    seeds = (SEEDS_FROM, SEEDS_FROM + 1)
    assert moments == [(s, epoch) for epoch in (0, 1, 2) for s in seeds for _ in range(3)]
    assert not regularized.kernels  # which are kept of fixed strengths alone


def test_effective_maps_are_a_fraction_of_the_channels(regularized):
    """Of the first layer, before training, by NumPy."""
    kernel = oracle.float64(random_weights(SEEDS_FROM)["Conv_0"]["kernel"])
    padded = np.pad(oracle.float64(PIXELS[0]), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    maps = np.einsum("nyxcij,ijcm->nyxm", windows, kernel).reshape(-1, kernel.shape[-1])
    correlation = np.corrcoef(maps.T)
    expected = np.trace(correlation) ** 2 / (correlation**2).sum() / len(correlation)
    first = regularized.layers[0]
    assert (first.layer, first.epoch) == ("Conv_0/kernel", 0)
    assert first.effective_before == pytest.approx(expected, rel=2e-3)


def test_the_same_trial_twice_is_bit_for_bit_the_same(trainer, regularized):
    """Whatever was trained by the same programs in between."""
    other = run(trainer, "test", "paper-reg", 0.05, 0.1)
    again = run(trainer, "test", "paper-reg", 0.01, 0.2)
    assert again.epochs == regularized.epochs
    assert again.layers == regularized.layers
    assert [score[:3] for score in again.scores] == [s[:3] for s in regularized.scores]
    first = {row[:3]: row.norm for row in regularized.layers}
    for row in other.layers:  # of another rate and strength
        assert (row.norm == first[row[:3]]) == (row.epoch == 0)


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


def test_a_decay_besides_is_that_of_the_baseline(trainer):
    """And an intervention that has fewer seeds has those of the others."""
    alone = run(trainer, "test", "decay", 0.3, 0.1)
    besides = run(trainer, "test", "none", 0.0, 0.1, decay=0.3)
    assert [score.seed for score in alone.scores] == [SEEDS_FROM]
    seed = [row for row in besides.epochs if row.seed == SEEDS_FROM]
    rows, expected = ([row[2:] for row in each] for each in (seed, alone.epochs))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_what_is_reported_may_be_trained_on_all_images_and_fixed_strengths_keep_kernels():
    whole = Trainer(replace(SETTING, whole=True), open_feed)
    assert whole.feed(reported=True).sizes["validation"] == 0
    assert whole.feed(reported=False).sizes["validation"] == len(VALIDATION.labels)
    fixed = replace(SETTING, tuned=0, seeds=1, first_seed=0)
    trainer = Trainer(fixed, open_feed)
    outcome = run(trainer, "validation", "none", 0.0, 0.2, seeds=range(1))
    start, end, curve, _ = plain(0, 0.2, 0.0)
    assert outcome.scores[0].accuracy == pytest.approx(curve[-1][1])
    for when, params in (("start", start), ("end", end)):
        for layer in ("Conv_0", "Conv_1", "Conv_2"):
            kernel = outcome.kernels[f"{when}/{layer}/kernel"]
            np.testing.assert_allclose(kernel, params[layer]["kernel"], 1e-4, 1e-6)
