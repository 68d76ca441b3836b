"""Batch normalisation, against Flax's, its derivative and its running averages too."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convsim_jax.flax import capture_feature_maps
from experiments.models.normalization import BatchNorm

MOMENTUM = 0.8


def networks(**options):
    """Ours and Flax's, of the same variables."""
    return [norm(momentum=MOMENTUM, **options) for norm in (BatchNorm, nn.BatchNorm)]


@pytest.fixture
def variables():
    generator = np.random.default_rng(0)

    def draw(low):
        return jnp.asarray(generator.uniform(low, 2, size=5), jnp.float32)

    return {
        "params": {"scale": draw(0.5), "bias": draw(-2)},
        "batch_stats": {"mean": draw(-2), "var": draw(0.5)},
    }


@pytest.fixture(params=[(16, 5), (4, 6, 3, 5)])
def maps(request):
    generator = np.random.default_rng(1)
    return jnp.asarray(generator.normal(1, 3, request.param), jnp.float32)


def test_variables_training_and_scoring_are_those_of_flax(variables, maps, relaxed_jax):
    @partial(jax.jit, static_argnums=0)
    def all_of(model, variables, maps):
        started = model.init(jax.random.key(0), maps, use_running_average=False)
        scored = model.apply(variables, maps, use_running_average=True)

        def trained(params, maps):
            given = {**variables, "params": params}
            y, updated = model.apply(
                given, maps, use_running_average=False, mutable=["batch_stats"]
            )
            return (jnp.sin(y) * jnp.arange(5.0)).sum(), (y, updated)

        loss_and_slopes = jax.value_and_grad(trained, (0, 1), has_aux=True)
        return started, scored, loss_and_slopes(variables["params"], maps)

    ours, flax = (all_of(model, variables, maps) for model in networks())
    chex.assert_trees_all_equal(ours[0], flax[0])
    chex.assert_trees_all_close(ours[1:], flax[1:], rtol=2e-5, atol=2e-5)


def test_half_precision_sums_in_float32(variables, relaxed_jax):
    maps = jnp.full((4096, 5), 0.1, jnp.bfloat16)
    model, _ = networks(use_running_average=False, dtype=jnp.bfloat16)
    y, updated = model.apply(variables, maps, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    mean = updated["batch_stats"]["mean"]
    before = variables["batch_stats"]["mean"]
    assert mean.dtype == jnp.float32
    expected = MOMENTUM * before + (1 - MOMENTUM) * float(jnp.bfloat16(0.1))
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_maps_without_variance_have_a_finite_slope(variables):
    model, _ = networks(use_running_average=False)

    def total(maps):
        return jnp.square(model.apply(variables, maps, mutable=["batch_stats"])[0]).sum()

    slope = jax.jit(jax.grad(total))(jnp.ones((8, 5)))
    assert np.isfinite(slope).all()


def test_its_result_counts_as_the_maps_before_the_activation(variables, relaxed_jax):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(5, (3, 3), name="conv")(x)
            x = BatchNorm(use_running_average=True, momentum=MOMENTUM, name="norm")(x)
            return nn.relu(x)

    draw = np.random.default_rng(2).standard_normal
    images = draw((2, 6, 6, 3)).astype("f4")
    conv = {"kernel": draw((3, 3, 3, 5)).astype("f4"), "bias": draw(5).astype("f4")}
    variables = {
        "params": {"conv": conv, "norm": variables["params"]},
        "batch_stats": {"norm": variables["batch_stats"]},
    }
    maps = capture_feature_maps(Network(), images, variables=variables)["conv"].before
    expected = Network().apply(variables, images)
    assert (maps < 0).any()
    np.testing.assert_allclose(nn.relu(maps), expected, rtol=1e-6, atol=1e-6)


def test_a_mask_is_refused(variables):
    x = jnp.ones((4, 3, 5))
    with pytest.raises(ValueError, match=r"^mask is of shape \(4, 3, 1\); expected N"):
        BatchNorm(use_running_average=True).apply(
            variables, x, mask=jnp.ones((4, 3, 1), bool)
        )
