import re

import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from tests.library import oracle


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


PARAMS = {
    "stem": {"kernel": normal(0, (2, 3, 1, 4)), "bias": jnp.ones(4)},
    "a_block_of_a_long_name": {"conv": {"kernel": 100 * normal(1, (1, 1, 3, 12))}},
    "head": {"kernel": normal(2, (4, 2))},
}


def mean_absolute_cosine(kernel, groups=1):
    cosines = oracle.kernel_cosine_similarity(kernel)
    pairs = list(oracle.pairs_of(kernel.shape[-1], "all", groups))
    return np.mean([abs(cosines[i, j]) for i, j in pairs]) if pairs else 0.0


@pytest.mark.parametrize("pairs", ["all", "adjacent"])
@pytest.mark.parametrize("channels", ["matched", "cross"])
def test_values(pairs, channels):
    options = {"pairs": pairs, "channels": channels}
    report = cs.similarity_report(PARAMS, **options)
    kernels = cs.conv_kernels(PARAMS)
    assert [layer.path for layer in report.layers] == list(kernels)
    assert len(report.layers) == 2
    for layer in report.layers:
        kernel = oracle.float64(kernels[layer.path])
        assert layer.shape == kernel.shape
        expected = {
            "norm": np.linalg.norm(kernel),
            "similarity": oracle.convolutional_similarity(kernel, **options),
            "scale_free": oracle.convolutional_similarity(
                kernel, **options, normalize=True
            ),
            "kernel_cosine": mean_absolute_cosine(kernel),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(layer, name), value, rtol=1e-5)


def test_pairs_of_grouped_convs_are_inside_a_group():
    kernel = normal(3, (2, 2, 1, 6))
    (layer,) = cs.similarity_report(
        {"kernel": kernel}, feature_group_count={"kernel": 3}
    ).layers
    for name, normalize in [("similarity", False), ("scale_free", True)]:
        expected = oracle.convolutional_similarity(
            kernel, normalize=normalize, feature_group_count=3
        )
        np.testing.assert_allclose(getattr(layer, name), expected, rtol=1e-5)
    expected = mean_absolute_cosine(kernel, groups=3)
    np.testing.assert_allclose(layer.kernel_cosine, expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_one_channel_or_zero_kernels_are_not_similar(outputs):
    kernel = jnp.zeros((2, 2, 1, outputs)) if outputs > 1 else jnp.ones((2, 2, 1, 1))
    (layer,) = cs.similarity_report({"kernel": kernel}).layers
    assert layer.similarity == layer.scale_free == layer.kernel_cosine == 0
    assert layer.norm == (0 if outputs > 1 else 2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_kernels_are_reported_without_overflow(dtype):
    """Numbers for people, not of the kernel's dtype: the norm alone is over 65504."""
    kernel = (20000 * normal(4, (2, 2, 4, 4)).clip(-3, 3)).astype(dtype)
    (layer,) = cs.similarity_report({"kernel": kernel}).layers
    exact = oracle.float64(kernel)
    np.testing.assert_allclose(layer.norm, np.linalg.norm(exact), rtol=1e-5)
    expected = oracle.convolutional_similarity(exact)
    np.testing.assert_allclose(layer.similarity, expected, rtol=1e-5)
    expected = oracle.convolutional_similarity(exact, normalize=True)
    np.testing.assert_allclose(layer.scale_free, expected, rtol=1e-5)


def test_layout_and_mask():
    kernel = normal(5, (2, 3, 1, 4))
    params = {"conv": {"weight": jnp.transpose(kernel, (3, 2, 0, 1))}}
    params["other"] = {"weight": jnp.ones((2, 2, 1, 1))}
    mask = {"conv": True, "other": False}
    (layer,) = cs.similarity_report(params, layout="OIHW", mask=mask).layers
    assert layer.path == "conv/weight"
    assert layer.shape == kernel.shape
    expected = oracle.convolutional_similarity(kernel)
    np.testing.assert_allclose(layer.similarity, expected, rtol=1e-5)


def test_table_has_a_row_for_each_layer_and_lines_up():
    report = cs.similarity_report(PARAMS)
    header, *rows = str(report).splitlines()
    for word in ("norm", "similarity", "scale-free", "cosine"):
        assert word in header
    assert len(rows) == len(report.layers)
    columns = [[m.span() for m in re.finditer(r"\S+( \S+)*", line)] for line in rows]
    titles = [m.span() for m in re.finditer(r"\S+( \S+)*", header)]
    assert {len(titles), *map(len, columns)} == {6}
    for column in zip(titles, *columns, strict=True):
        starts, ends = zip(*column, strict=True)
        assert len(set(starts)) == 1 or len(set(ends)) == 1
    for layer, row in zip(report.layers, rows, strict=True):
        path, _, *numbers = row.split()
        assert path == layer.path
        expected = (layer.norm, layer.similarity, layer.scale_free, layer.kernel_cosine)
        np.testing.assert_allclose([float(x) for x in numbers], expected, rtol=2e-3)


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"kernel": jnp.ones((2, 2))}, {}, r"params has no conv kernel"),
        (PARAMS, {"pairs": "none"}, r"pairs is 'none'.*'all' or 'adjacent'"),
        (PARAMS, {"channels": "none"}, r"channels is 'none'.*'matched' or 'cross'"),
        (PARAMS, {"feature_group_count": 5}, r"feature_group_count is 5.*divide"),
        (PARAMS, {"layout": "CHW"}, r"layout is 'CHW'.*'HWIO' or 'OIHW'"),
    ],
)
def test_rejects(params, options, message):
    with pytest.raises(ValueError, match=message):
        cs.similarity_report(params, **options)
