"""The optimizer on gradients that are given, and the step with a loss of maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import convsim_jax as cs
from experiments.fit.optimizer import Factors, optimizer
from experiments.fit.step import Batch, Network, train_step
from experiments.interventions import INTERVENTIONS
from experiments.losses import Decorrelation, Options, enough_of
from experiments.models import build

RATE, STRENGTH, DECAY = 0.05, 0.3, 0.01
# The gradient of the one is the kernel itself; the other is the paper's loss.
COUPLED, DECOUPLED = "decay", "paper-decoupled-reg"
generator = np.random.default_rng(0)
WEIGHTS = {
    "Conv_0": {
        "kernel": generator.normal(size=(3, 3, 1, 2)).astype(np.float32),
        "bias": np.ones(2, np.float32),
    },
    "Dense_0": {"kernel": generator.normal(size=(4, 3)).astype(np.float32)},
}
pytestmark = pytest.mark.usefixtures("relaxed_jax")  # optax promotes


def ours(name="sgd", momentum=0.9, weight_decay=DECAY, method="none", decay=None):
    return optimizer(
        name,
        optax.cosine_decay_schedule(1.0, 4),
        momentum,
        weight_decay,
        INTERVENTIONS[method].during,
        Options(),
        Factors(RATE, STRENGTH, decay),
    )


def decays(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def sgd(rates, momentum=0.9):
    decay = optax.add_decayed_weights(DECAY, decays)
    return optax.chain(decay, optax.sgd(rates, momentum))


def adamw(rates):
    return optax.adamw(rates, weight_decay=DECAY, mask=decays)


def after_steps(transform):
    """The weights after steps down the gradients that are given."""
    params, state = WEIGHTS, transform.init(WEIGHTS)
    update = jax.jit(transform.update)
    for number in range(3):
        updates, state = update(given(number), state, params)
        params = optax.apply_updates(params, updates)
    return params


def given(number):
    return jax.tree.map(lambda leaf: jnp.cos(leaf + number), WEIGHTS)


def assert_same(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other
    )


@pytest.mark.parametrize("method", ["none", COUPLED, DECOUPLED])
@pytest.mark.parametrize(
    ("name", "momentum", "reference"),
    [("sgd", 0.9, sgd), ("sgd", 0.0, partial(sgd, momentum=None)), ("adamw", 0.9, adamw)],
)
def test_optimizers_are_those_of_optax(name, momentum, reference, method):
    """Coupled, a regularizer is part of the loss; decoupled, a step of its own beside."""
    rates = optax.cosine_decay_schedule(RATE, 4)
    theirs = reference(rates)
    expected, state = WEIGHTS, theirs.init(WEIGHTS)
    for number in range(3):
        slope = jax.grad(cs.total_similarity)(expected)
        kernels = jax.tree.map(lambda leaf: leaf * (leaf.ndim == 4), expected)
        gradient = given(number)
        if method == COUPLED:
            gradient = jax.tree.map(lambda g, k: g + STRENGTH * k, gradient, kernels)
        updates, state = theirs.update(gradient, state, expected)
        if method == DECOUPLED:
            step = rates(number) * STRENGTH
            updates = jax.tree.map(lambda u, s, step=step: u - step * s, updates, slope)
        expected = optax.apply_updates(expected, updates)
    assert_same(after_steps(ours(name, momentum, method=method)), expected)


def test_what_is_decoupled_does_not_enter_the_momentum():
    zeros = jax.tree.map(np.zeros_like, WEIGHTS)
    for method in (COUPLED, DECOUPLED):
        transform = ours(weight_decay=0.0, method=method)
        updates, state = transform.update(zeros, transform.init(WEIGHTS), WEIGHTS)
        assert np.any(updates["Conv_0"]["kernel"])
        trace = jax.tree.leaves(optax.tree.get(state, "trace"))
        assert any(np.any(leaf) for leaf in trace) == (method == COUPLED)


def test_a_decay_besides_is_the_intervention_decay():
    besides = after_steps(ours(decay=STRENGTH))
    assert_same(besides, after_steps(ours(method=COUPLED)))


def test_muon_takes_conv_kernels_as_matrices():
    """As if optax's Muon, which takes matrices alone, were given them reshaped."""
    flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]).squeeze(), WEIGHTS)
    theirs = optax.contrib.muon(optax.cosine_decay_schedule(RATE, 4))
    expected, state = flat, theirs.init(flat)
    for number in range(3):
        gradient = jax.tree.map(lambda x, y: x.reshape(y.shape), given(number), flat)
        updates, state = theirs.update(gradient, state, expected)
        expected = optax.apply_updates(expected, updates)
    result = after_steps(ours("muon", weight_decay=0.0))
    assert_same(jax.tree.map(lambda x, y: x.reshape(y.shape), result, flat), expected)


@pytest.mark.parametrize(
    ("loss", "number", "times"),
    [
        (Decorrelation(), 3, 1),
        (Decorrelation(own=True), 3, 1),
        (Decorrelation(part=1), 3, 1),
        (Decorrelation(rows=True), 3, 1),
        (Decorrelation(every=4), 8, 4),
        (Decorrelation(every=4), 7, 0),
    ],
)
def test_a_loss_of_maps_is_added_to_the_gradient_and_not_to_the_loss(loss, number, times):
    model = build("cnn-plain", classes=3, channels=1, width=0.1)
    pixels = np.float32(np.random.default_rng(1).normal(size=(8, 8, 8, 1)))
    batch = Batch(jnp.asarray(pixels), jnp.arange(8, dtype=jnp.int32) % 3)
    params = model.init(jax.random.key(0), pixels)["params"]
    descent = optax.sgd(1.0)
    state = descent.init(params), jnp.zeros(()), jnp.int32(0)
    network = Network({"params": params}, *state)
    steps = [
        jax.jit(
            lambda network, batch, number, added=added: train_step(
                model, descent, 0.0, network, batch, None, added, 0.5, number
            )
        )(network, batch, number)
        for added in (None, loss)
    ]
    np.testing.assert_allclose(steps[0].loss, steps[1].loss, rtol=1e-5)
    first, second = (step.variables["params"] for step in steps)

    def expected(params):
        total, maps = 0.0, batch.images
        for layer in ("Conv_0", "Conv_1", "Conv_2"):  # conv, ReLU, pooling by 2
            inputs = jax.lax.stop_gradient(maps) if loss.own else maps
            maps = jax.lax.conv_general_dilated(
                inputs, params[layer]["kernel"], (1, 1), "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
            maps += params[layer]["bias"]
            M = maps.shape[-1]
            # Of 3, 6 and 13 channels: a quarter; two rows, for 48 samples; all.
            middle = {8: slice(3, 5), 4: slice(1, 3), 2: slice(0, 2)}[maps.shape[1]]
            seen = maps[:, middle] if loss.rows else enough_of(maps, loss.part)
            flat = seen.reshape(-1, M)
            flat = flat - flat.mean(0)
            norms = jnp.sqrt((flat**2).sum(0))
            cosines = flat.T @ flat / norms[:, None] / norms[None]
            total += ((cosines**2).sum() - M) / (M * (M - 1))
            maps = jax.nn.relu(maps)
            maps = jax.lax.reduce_window(
                maps, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            )
        return total

    slope = jax.jit(jax.grad(expected))(params)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(slope))
    jax.tree.map(
        lambda a, b, s: np.testing.assert_allclose(
            a - b, 0.5 * times * s, rtol=2e-3, atol=2e-5
        ),
        first,
        second,
        slope,
    )
