"""Correlation of maps over a batch: the loss, the effective number, on many devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import seeds
from tests.library.test_sharding import sizes_communicated

SHAPES = [(4, 5, 6), (5, 4, 3, 6), (3, 2, 3, 2, 6)]


def mixed(seed, shape, dtype=np.float64):
    """Maps that are correlated, of unlike means and scales."""
    rng = np.random.default_rng(seed)
    M = shape[-1]
    maps = rng.standard_normal(shape) @ rng.standard_normal((M, M))
    return (maps * rng.uniform(0.1, 9, M) + 3 * rng.standard_normal(M)).astype(dtype)


def correlation(maps):
    """By NumPy in float64; constant maps have none."""
    pixels = oracle.float64(maps).reshape(-1, np.shape(maps)[-1])
    varied = np.ptp(pixels, 0) > 0
    result = np.zeros((len(varied), len(varied)))
    result[np.ix_(varied, varied)] = np.corrcoef(pixels[:, varied], rowvar=False)
    return result


def expected_decorrelation(maps, groups=1):
    r = correlation(maps)
    squares = [r[pair] ** 2 for pair in oracle.pairs_of(len(r), "all", groups)]
    return np.mean(squares) if squares else 0.0


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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shape", "fraction", "groups", "rows"),
    [
        ((4, 8, 5, 2), 0.25, 1, [3, 4]),
        ((4, 8, 5, 2), 0.5, 1, [2, 3, 4, 5]),
        ((4, 9, 5, 2), 0.26, 1, [3, 4, 5]),
        ((4, 25, 5, 2), 0.28, 1, range(9, 16)),  # 0.28 * 25 is a little more than 7
        ((4, 8, 5, 2), 1, 1, range(8)),
        ((4, 8, 3, 6), 0.25, 1, [2, 3, 4, 5]),  # 8 samples a channel: 48
        ((4, 8, 3, 6), 0.25, 2, [3, 4]),  # of a group
        ((2, 8, 1, 6), 0.25, 1, range(8)),
        ((16, 9, 6), 0.1, 1, [3, 4, 5]),
        ((4, 8, 2, 3, 2), 0.25, 1, [3, 4]),
    ],
)
def test_a_fraction_is_the_middle_rows_of_all_images(shape, fraction, groups, rows):
    maps = mixed(3, shape)
    loss = partial(cs.decorrelation, feature_group_count=groups)
    value, slope = jax.value_and_grad(loss)(maps, fraction=fraction)
    seen = maps[:, [*rows]]
    np.testing.assert_allclose(value, expected_decorrelation(seen, groups), rtol=1e-9)
    np.testing.assert_allclose(slope[:, [*rows]], jax.grad(loss)(seen), atol=1e-12)
    others = [row for row in range(shape[1]) if row not in rows]
    np.testing.assert_array_equal(slope[:, others], 0)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, np.nan, "half", None, 1j, True])
def test_what_is_no_fraction_is_an_error(fraction):
    with pytest.raises(ValueError, match=r"^fraction is .*; expected a number above 0"):
        cs.decorrelation(jnp.ones((2, 3, 3, 4)), fraction=fraction)


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


@pytest.mark.slow
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
    varied = mixed(3, (2, 57, 91, 2), np.float32)
    result = cs.effective_maps(jnp.concatenate([maps, varied], -1))
    np.testing.assert_allclose(result, expected_effective(varied), rtol=1e-5)


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


# The report.


def maps_with_a_dead_and_a_constant():
    maps = mixed(0, (3, 5, 4, 7), np.float32)
    maps[..., 2], maps[..., 4] = 0, 0.3
    return maps


def mean_over_pairs(matrix):
    return np.abs(matrix[np.triu_indices(len(matrix), 1)]).mean()


def test_each_number_is_its_definition():
    maps = maps_with_a_dead_and_a_constant()
    (row,) = cs.redundancy_report({"conv": maps}).layers.values()
    r = np.abs(correlation(maps))
    np.testing.assert_allclose(row.effective, expected_effective(maps), rtol=1e-5)
    np.testing.assert_allclose(row.correlation, mean_over_pairs(r), rtol=1e-5)
    np.fill_diagonal(r, 0)
    np.testing.assert_allclose(row.twin_correlation, r.max(0), rtol=1e-5)
    varied = r.max(0) > 0
    np.testing.assert_array_equal(row.twin[varied], r.argmax(0)[varied])
    assert (row.dead, row.constant, row.shape) == (1, 1, maps.shape)
    cosine = oracle.feature_map_similarity(maps)
    np.testing.assert_allclose(row.cosine, cosine, rtol=1e-5)
    pixels = maps.astype(np.float64).reshape(-1, 7)
    norms = np.sqrt(np.mean(pixels**2, 0))
    direction = pixels.mean(0) / np.where(norms > 0, norms, 1)
    expected = mean_over_pairs(np.outer(direction, direction))
    np.testing.assert_allclose(row.independent_cosine, expected, rtol=1e-5)


def test_independent_maps_after_relu_have_the_cosine_one_over_pi():
    maps = np.random.default_rng(1).standard_normal((2, 100, 100, 8)).astype(np.float32)
    report = cs.redundancy_report({"conv": np.maximum(maps, 0)})
    row = report.layers["conv"]
    np.testing.assert_allclose(row.independent_cosine, 1 / np.pi, rtol=0.02)
    np.testing.assert_allclose(row.cosine, row.independent_cosine, rtol=0.02)
    assert row.effective > 7.9


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("maps", [np.zeros((2, 3, 4)), np.ones((2, 3, 1))])
def test_dead_maps_and_a_single_one(maps, dtype):
    row = cs.redundancy_report({"a": jnp.asarray(maps, dtype)}).layers["a"]
    assert row.effective == row.correlation == row.cosine == row.independent_cosine == 0
    assert row.dead + row.constant == maps.shape[-1]


def test_report_of_no_layer():
    with pytest.raises(ValueError, match="maps is empty"):
        cs.redundancy_report({})


def test_prints_a_row_a_layer():
    maps = {"first": maps_with_a_dead_and_a_constant(), "last": np.ones((1, 2, 2))}
    lines = str(cs.redundancy_report(maps)).splitlines()
    assert lines[0].split()[:3] == ["layer", "shape", "effective"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["first", "3x5x4x7"],
        ["last", "1x2x2"],
    ]
    assert len({len(line) for line in lines}) == 1


# Many devices.

MAPS = mixed(4, (16, 6, 5, 4), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    ("fraction", "part", "seen"),
    [
        (1.0, np.s_[:], np.s_[:]),
        (0.25, np.s_[:], np.s_[:, 2:4]),
        (1.0, np.s_[:, ::2, ::2], np.s_[:, ::2, ::2]),
    ],
    ids=["all", "rows", "positions"],
)
def test_a_sharded_batch_sends_only_moments(axis_type, fraction, part, seen):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    spread = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        maps = jax.device_put(MAPS, spread)
        loss = partial(cs.decorrelation, fraction=fraction)
        step = jax.jit(jax.value_and_grad(lambda maps: loss(maps[part])))
        program = step.lower(maps).compile()
        value, slope = program(maps)
        effective = cs.effective_maps(maps)
    assert max(sizes_communicated(program.as_text())) <= 4 * 4
    assert slope.sharding.is_equivalent_to(spread, 4)
    expected = jax.grad(lambda maps: cs.decorrelation(maps[seen]))(MAPS)
    np.testing.assert_allclose(value, expected_decorrelation(MAPS[seen]), rtol=1e-5)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(effective, expected_effective(MAPS), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [P("data"), P(None, None, None, "data")])
def test_report_on_sharded_maps(spec):
    maps = mixed(5, (8, 3, 4, 8), np.float32)
    (expected,) = cs.redundancy_report({"conv": maps}).layers.values()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(maps, NamedSharding(mesh, spec))
        (row,) = cs.redundancy_report({"conv": placed}).layers.values()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), row, expected)


PARTS = MAPS.reshape(8, 2, *MAPS.shape[1:])
SPREAD = {
    "shard_map": lambda f: jax.shard_map(
        f,
        mesh=jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=P("data"),
        out_specs=P(),
    )(MAPS),
    "pmap": lambda f: jax.pmap(f, axis_name="data")(PARTS)[0],
    "vmap": lambda f: jax.vmap(f, axis_name="data", out_axes=None)(PARTS),
}


@pytest.mark.slow
@pytest.mark.parametrize(  # a tenth is one row; of a device's images alone it is two
    ("spread", "fraction"), [("shard_map", 0.1), ("pmap", 1.0), ("vmap", 0.1)]
)
def test_axis_name_makes_it_that_of_the_whole_batch(spread, fraction):
    """Value and, by each user's convention, the gradient with respect to weights."""
    options = {"feature_group_count": 2, "fraction": fraction}

    def slope(maps, axis_name=None):
        def loss(weights):
            mixture = jnp.tanh(maps @ weights)
            return cs.decorrelation(mixture, axis_name=axis_name, **options)

        slope = jax.grad(loss)(jnp.eye(4))
        # In shard_map weights do not vary, and JAX itself sums their gradients.
        return (
            slope if spread == "shard_map" or not axis_name else lax.pmean(slope, "data")
        )

    value = SPREAD[spread](partial(cs.decorrelation, axis_name="data", **options))
    seen = MAPS if fraction == 1 else MAPS[:, 2:3]
    np.testing.assert_allclose(value, expected_decorrelation(seen, 2), rtol=1e-5)
    effective = SPREAD[spread](partial(cs.effective_maps, axis_name="data"))
    np.testing.assert_allclose(effective, expected_effective(MAPS), rtol=1e-5)
    result = SPREAD[spread](partial(slope, axis_name="data"))
    np.testing.assert_allclose(result, slope(MAPS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (cs.decorrelation, "maps"),
        (cs.effective_maps, "maps"),
        (cs.feature_map_similarity, "feature_maps"),
        (lambda maps: cs.redundancy_report({"a": maps}), r"maps\['a'\]"),
    ],
)
def test_rejects_what_is_no_map(function, name):
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, 4\); expected \(batch"):
        function(jnp.ones((3, 4)))
    with pytest.raises(ValueError, match=f"{name} has dtype int32; expected a floating"):
        function(jnp.ones((2, 3, 4), int))
    with pytest.raises(ValueError, match=f"{name} is {{'conv': .*; expected an array"):
        function({"conv": MAPS})


def test_rejects_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="feature_group_count is 3, which does not div"):
        cs.decorrelation(MAPS, feature_group_count=3)
