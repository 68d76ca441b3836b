import re

import jax
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


def check_row(row, kernel, **options):
    groups = options.get("feature_group_count", 1)
    expected = {
        "norm": np.linalg.norm(oracle.float64(kernel)),
        "similarity": oracle.convolutional_similarity(kernel, **options),
        "scale_free": oracle.convolutional_similarity(kernel, normalize=True, **options),
        "kernel_cosine": mean_absolute_cosine(kernel, groups),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(row, name), value, rtol=1e-5)


@pytest.mark.parametrize("pairs", ["all", "adjacent"])
@pytest.mark.parametrize("channels", ["matched", "cross"])
def test_values(pairs, channels):
    options = {"pairs": pairs, "channels": channels}
    rows = cs.similarity_report(PARAMS, **options).layers
    kernels = cs.conv_kernels(PARAMS)
    assert [(row.path, row.shape) for row in rows] == [
        (path, kernel.shape) for path, kernel in kernels.items()
    ]
    for row in rows:
        check_row(row, kernels[row.path], **options)


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
    (row,) = cs.similarity_report({"kernel": kernel}).layers
    check_row(row, kernel)


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


# Layers of a network.


def test_stacks_groups_and_strides_of_layers():
    """A row for each kernel of a stack; groups see pairs of their own alone."""

    def apply(params, x):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

        def layer(x, kernel):
            padding = ((1, 1), (1, 1))
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), padding, feature_group_count=2, **options
            ), None

        x, _ = jax.lax.scan(layer, x, params["stack"])
        return jax.lax.conv_general_dilated(x, params["w"], (2, 2), "VALID", **options)

    params = {"stack": normal(6, (3, 3, 3, 2, 4)), "w": normal(7, (3, 3, 4, 5))}
    layers = cs.conv_layers(apply, params, jnp.ones((1, 8, 8, 4)))
    rows = cs.similarity_report(params, layers=layers).layers
    assert [row.path for row in rows] == ["stack[0]", "stack[1]", "stack[2]", "w"]
    for row, kernel in zip(rows, params["stack"], strict=False):
        check_row(row, kernel, feature_group_count=2)
    check_row(rows[3], params["w"], strides=(2, 2))


def test_what_is_the_same_for_any_kernel_is_marked_and_not_in_the_mean():
    params = {
        "a": {"kernel": normal(8, (3, 3, 2, 4))},
        "b": {"kernel": normal(9, (1, 1, 2, 4))},
        "c": {"kernel": normal(10, (3, 3, 4, 1))},
    }
    a, b, c = (report := cs.similarity_report(params, channels="cross")).layers
    assert (a.constant, b.constant, c.constant) == (False, True, True)
    np.testing.assert_allclose(b.scale_free, 1, rtol=1e-5)
    assert report.scale_free == a.scale_free
    assert [line.count("*") for line in str(report).splitlines()] == [0, 0, 1, 1, 1]
    matched = cs.similarity_report(params)
    assert [layer.constant for layer in matched.layers] == [False, False, True]
    mean = np.mean([layer.scale_free for layer in matched.layers[:2]])
    np.testing.assert_allclose(matched.scale_free, mean)
    assert np.isnan(cs.similarity_report(params["c"]).scale_free)


@pytest.mark.parametrize(
    ("transposed", "stride", "constant"), [(False, 2, True), (True, 2, False)]
)
def test_windows_no_larger_than_their_strides_see_one_lag(transposed, stride, constant):
    def apply(params, x):
        if transposed:
            return jax.lax.conv_transpose(x, params["w"], (stride, stride), "VALID")
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, params["w"], (stride, stride), "VALID", dimension_numbers=dimensions
        )

    params = {"w": normal(11, (2, 2, 3, 4))}
    layers = cs.conv_layers(apply, params, jnp.ones((1, 8, 8, 3)))
    (layer,) = cs.similarity_report(params, layers=layers, channels="cross").layers
    assert layer.constant == constant
    assert (abs(layer.scale_free - 1) < 1e-5) == constant
