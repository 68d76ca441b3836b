"""Correlation of maps over a batch: the loss, the effective number, on many devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import convsim_jax as cs
from tests.library.test_sharding import sizes_communicated

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPES = [(4, 5, 6), (5, 4, 3, 6), (3, 2, 3, 2, 6)]
seeds = st.integers(0, 2**32 - 1)


def mixed(seed, shape, dtype=np.float64):
    """Maps that are correlated, of unlike means and scales."""
    rng = np.random.default_rng(seed)
    M = shape[-1]
    maps = rng.standard_normal(shape) @ rng.standard_normal((M, M))
    return (maps * rng.uniform(0.1, 9, M) + 3 * rng.standard_normal(M)).astype(dtype)


def correlation(maps):
    """By NumPy in float64; constant maps have none."""
    pixels = np.asarray(maps, np.float64).reshape(-1, np.shape(maps)[-1])
    varied = np.ptp(pixels, 0) > 0
    result = np.zeros((len(varied), len(varied)))
    result[np.ix_(varied, varied)] = np.corrcoef(pixels[:, varied], rowvar=False)
    return result


def expected_decorrelation(maps, groups=1):
    r = correlation(maps)
    size = len(r) // groups
    pairs = [(i, j) for i in range(len(r)) for j in range(i) if i // size == j // size]
    return np.mean([r[i, j] ** 2 for i, j in pairs]) if pairs else 0.0


def expected_effective(maps):
    e = np.linalg.eigvalsh(correlation(maps))
    return e.sum() ** 2 / np.sum(e**2)


@pytest.mark.usefixtures("x64")
@given(st.sampled_from(SHAPES), st.sampled_from([1, 2, 3, 6]), seeds)
def test_are_their_definitions(shape, groups, seed):
    maps = mixed(seed, shape)
    result = cs.decorrelation(maps, feature_group_count=groups)
    assert result.shape == ()
    np.testing.assert_allclose(result, expected_decorrelation(maps, groups), rtol=1e-9)
    np.testing.assert_allclose(cs.effective_maps(maps), expected_effective(maps))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(groups):
    """Also for maps of which one is constant; once of second order."""
    maps = mixed(0, (3, 4, 4))
    loss = partial(cs.decorrelation, feature_group_count=groups)
    check_grads(jax.jit(loss), (maps,), order=groups, rtol=1e-5)
    check_grads(jax.jit(cs.effective_maps), (maps,), 1, rtol=1e-5)
    dead = maps * np.array([1.0, 0, 1, 1])
    slope = jax.grad(loss)(dead)
    np.testing.assert_array_equal(slope[..., 1], 0)
    others = [0, 2, 3] if groups == 1 else [2, 3]
    alone = jax.grad(cs.decorrelation)(dead[..., others])
    pairs_of_alone, pairs = (3, 6) if groups == 1 else (1, 2)
    np.testing.assert_allclose(slope[..., others], alone * pairs_of_alone / pairs)


@pytest.mark.parametrize("groups", [1, 2])
def test_value_and_gradient_cost_two_products(groups):
    """One for the covariance, one for its gradient; a product has two derivatives."""
    loss = partial(cs.decorrelation, feature_group_count=groups)
    program = jax.jit(jax.value_and_grad(loss)).lower(jnp.ones((2, 3, 3, 4)))
    assert program.as_text().count("dot_general") == 2


@pytest.mark.parametrize(("mean", "scale"), [(0, 1e-25), (0, 1e25), (1e4, 1.0)])
def test_is_free_of_scale_and_mean(mean, scale):
    maps = mixed(1, (4, 8, 8, 5)) * scale + mean
    maps = maps.astype(np.float32)
    value, slope = jax.value_and_grad(cs.decorrelation)(maps)
    np.testing.assert_allclose(value, expected_decorrelation(maps), rtol=1e-3)
    assert np.all(np.isfinite(slope))
    assert np.any(slope != 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_rounds_once(dtype):
    maps = 300 * mixed(2, (2, 16, 16, 5)) / 30 + 300  # squares overflow float16
    maps = jnp.asarray(maps, dtype)
    for function, expected in [
        (cs.decorrelation, expected_decorrelation(maps)),
        (cs.effective_maps, expected_effective(maps)),
    ]:
        assert function(maps).dtype == dtype
        np.testing.assert_allclose(
            np.float64(function(maps)), expected, rtol=jnp.finfo(dtype).eps
        )
    assert jax.grad(cs.decorrelation)(maps).dtype == dtype


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7, 123.456])
def test_constant_maps_count_as_nothing(value):
    """Not as copies of each other, though rounding leaves a rest of their mean."""
    maps = jnp.full((2, 57, 91, 3), value)
    for function in (cs.decorrelation, cs.effective_maps):
        number, slope = jax.value_and_grad(function)(maps)
        assert number == 0
        np.testing.assert_array_equal(slope, 0)
    varied = jnp.asarray(mixed(3, (2, 57, 91, 2)), jnp.float32)
    both = jnp.concatenate([maps, varied], -1)
    np.testing.assert_allclose(
        cs.effective_maps(both), cs.effective_maps(varied), rtol=1e-6
    )


def test_copies_and_orthogonal_maps():
    a, b = jnp.array([1.0, -1, 1, -1]), jnp.array([1.0, 1, -1, -1])
    copies = jnp.stack([a, 2 * a + 1, -3 * a], -1)[None]
    assert cs.decorrelation(copies) == 1
    assert cs.effective_maps(copies) == 1
    apart = jnp.stack([a, b], -1)[None]
    assert cs.decorrelation(apart) == 0
    assert cs.effective_maps(apart) == 2
    assert cs.decorrelation(a[None, :, None]) == 0
    assert cs.effective_maps(a[None, :, None]) == 1


def test_a_map_that_is_no_number_is_not_hidden():
    maps = jnp.ones((2, 3, 3, 4)).at[0, 0, 0, 1].set(jnp.nan)
    assert np.isnan(cs.decorrelation(maps))


# Many devices.

MAPS = mixed(4, (16, 6, 5, 4), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("part", [np.s_[:], np.s_[:, ::2, ::2]], ids=["all", "part"])
def test_a_sharded_batch_sends_only_moments(axis_type, part):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    spread = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        maps = jax.device_put(MAPS, spread)
        step = jax.jit(jax.value_and_grad(lambda maps: cs.decorrelation(maps[part])))
        program = step.lower(maps).compile()
        value, slope = program(maps)
        effective = cs.effective_maps(maps)
    assert max(sizes_communicated(program.as_text())) <= 4 * 4
    assert slope.sharding.is_equivalent_to(spread, 4)
    expected = jax.value_and_grad(lambda maps: cs.decorrelation(maps[part]))(MAPS)
    np.testing.assert_allclose(value, expected_decorrelation(MAPS[part]), rtol=1e-5)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(effective, expected_effective(MAPS), rtol=1e-5)


@pytest.mark.parametrize("spec", [P("data"), P(None, None, None, "data")])
def test_report_on_sharded_maps(spec):
    maps = mixed(5, (8, 3, 4, 8), np.float32)
    (expected,) = cs.redundancy_report({"conv": maps}).layers.values()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(maps, NamedSharding(mesh, spec))
        (row,) = cs.redundancy_report({"conv": placed}).layers.values()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), row, expected)


def by_shard_map(function):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=P())(MAPS)


def by_pmap(function):
    return jax.pmap(function, axis_name="data")(MAPS.reshape(8, 2, *MAPS.shape[1:]))[0]


def by_vmap(function):
    maps = MAPS.reshape(8, 2, *MAPS.shape[1:])
    return jax.vmap(function, axis_name="data", out_axes=None)(maps)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [by_shard_map, by_pmap, by_vmap])
def test_axis_name_makes_it_that_of_the_whole_batch(spread):
    """Value and, by each user's convention, the gradient with respect to weights."""

    def effective(maps):
        return cs.effective_maps(maps, axis_name="data")

    def slope(maps):
        def loss(weights):
            mixture = jnp.tanh(maps @ weights)
            return cs.decorrelation(mixture, axis_name="data", feature_group_count=2)

        slope = jax.grad(loss)(jnp.eye(4))
        if spread is by_shard_map:  # weights that do not vary: summed by JAX itself
            return slope
        return jax.lax.pmean(slope, "data")

    np.testing.assert_allclose(spread(effective), expected_effective(MAPS), rtol=1e-5)
    whole = jax.grad(
        lambda weights: cs.decorrelation(jnp.tanh(MAPS @ weights), feature_group_count=2)
    )(jnp.eye(4))
    np.testing.assert_allclose(spread(slope), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("function", [cs.decorrelation, cs.effective_maps])
def test_rejects_what_is_no_map(function):
    with pytest.raises(ValueError, match=r"maps has shape \(3, 4\); expected \(batch"):
        function(jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="maps has dtype int32; expected a floating"):
        function(jnp.ones((2, 3, 4), int))


def test_rejects_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="feature_group_count is 3, which does not div"):
        cs.decorrelation(MAPS, feature_group_count=3)
