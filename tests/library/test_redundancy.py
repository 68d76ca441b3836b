"""The report on maps of any origin."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from tests.library import oracle
from tests.library.test_decorrelation import correlation, expected_effective, mixed

pytestmark = pytest.mark.usefixtures("quick_compilation")


def maps_with_a_dead_and_a_constant():
    maps = mixed(0, (3, 5, 4, 7), np.float32)
    maps[..., 2], maps[..., 4] = 0, 0.3
    return maps


def mean_over_pairs(function, M):
    return np.mean([abs(function(i, j)) for i, j in itertools.combinations(range(M), 2)])


def test_each_number_is_its_definition():
    maps = maps_with_a_dead_and_a_constant()
    (row,) = cs.redundancy_report({"conv": maps}).layers.values()
    r = np.abs(correlation(maps))
    np.testing.assert_allclose(row.effective, expected_effective(maps), rtol=1e-5)
    np.testing.assert_allclose(
        row.correlation, mean_over_pairs(lambda i, j: r[i, j], 7), rtol=1e-5
    )
    np.fill_diagonal(r, 0)
    np.testing.assert_allclose(row.twin_correlation, r.max(0), rtol=1e-5)
    varied = r.max(0) > 0
    np.testing.assert_array_equal(row.twin[varied], r.argmax(0)[varied])
    assert (row.dead, row.constant, row.shape) == (1, 1, maps.shape)
    cosine = oracle.feature_map_similarity(maps)
    np.testing.assert_allclose(row.cosine, cosine, rtol=1e-5)
    mean = maps.astype(np.float64).mean((0, 1, 2))
    square = np.square(maps.astype(np.float64)).mean((0, 1, 2))

    def independent(i, j):
        return mean[i] * mean[j] / max(np.sqrt(square[i] * square[j]), 1e-30)

    np.testing.assert_allclose(
        row.independent_cosine, mean_over_pairs(independent, 7), rtol=1e-5
    )


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


def test_prints_a_row_a_layer():
    maps = {"first": maps_with_a_dead_and_a_constant(), "last": np.ones((1, 2, 2))}
    lines = str(cs.redundancy_report(maps)).splitlines()
    assert lines[0].split()[:3] == ["layer", "shape", "effective"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["first", "3x5x4x7"],
        ["last", "1x2x2"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_rejects():
    with pytest.raises(ValueError, match="maps is empty"):
        cs.redundancy_report({})
    with pytest.raises(ValueError, match=r"maps\['a'\] has shape \(3, 4\)"):
        cs.redundancy_report({"a": np.ones((3, 4), np.float32)})
