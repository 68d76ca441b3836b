"""Similarity of a whole network: its sum, its report, and what options are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import convsim_jax as cs
from convsim_jax._kernels import choose_kernels
from convsim_jax._similarity import Objective
from convsim_jax._total import sum_over_layers
from tests.library import oracle
from tests.library.kernel_cases import convolve, single

SCALE_FREE = {"normalize": True, "channels": "cross"}


def layers(dtype=jnp.float32):
    """Two layers of one shape, between them another, and what is no conv."""
    return {
        "a": {
            "kernel": single(0, (2, 2, 2, 4)).astype(dtype),
            "bias": jnp.ones(4, dtype),
        },
        "b": {"kernel": single(1, (1, 2, 1, 6)).astype(dtype)},
        "c": {"kernel": single(2, (2, 2, 2, 4)).astype(dtype)},
        "dense": {"kernel": single(3, (4, 2)).astype(dtype)},
        "step": jnp.array(7),
    }


def kernels(params):
    return [params[name]["kernel"] for name in "abc"]


# The sum.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": "adjacent"},
        {"channels": "cross", "normalize": True},
        {"pairs": "adjacent", "normalize": True, "feature_group_count": 2},
    ],
    ids=str,
)
def test_is_the_sum_over_layers(options):
    result = cs.total_similarity(layers(), **options)
    assert result.shape == ()
    expected = oracle.total_similarity(kernels(layers()), **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_gradient_of_each_layer_is_its_own():
    slope = jax.jit(jax.grad(cs.total_similarity, allow_int=True))(layers())
    for result, kernel in zip(kernels(slope), kernels(layers()), strict=True):
        expected = oracle.gradient(oracle.convolutional_similarity, kernel)
        assert oracle.relative_error(result, expected) < 1e-5
    assert not np.any(slope["a"]["bias"])


@pytest.mark.parametrize("groups", [{"b/kernel": 3}, {"c/kernel": 2}])
def test_groups_of_each_layer_by_path(groups):
    """Also of one of two layers of one shape."""
    result = cs.total_similarity(layers(), feature_group_count=groups)
    expected = sum(
        oracle.convolutional_similarity(kernel, feature_group_count=groups.get(path, 1))
        for path, kernel in cs.conv_kernels(layers()).items()
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
        (jnp.float64, jnp.float64, jnp.float64),
        (jnp.float16, jnp.float64, jnp.float64),
        (jnp.float16, jnp.bfloat16, jnp.float32),
    ],
)
def test_the_sum_has_the_widest_dtype_and_rounds_once(first, second, dtype):
    params = layers(first) | {"b": layers(second)["b"]}
    result = cs.total_similarity(params)
    assert result.dtype == dtype
    expected = oracle.total_similarity(kernels(params))
    most = 1e-12 if first == jnp.float64 else max(jnp.finfo(dtype).eps, 1e-6)
    assert oracle.relative_error(result, expected) <= most


def test_under_jit_and_vmap():
    stacked = {"a": {"kernel": single(0, (3, 1, 2, 1, 3))}}
    result = jax.jit(jax.vmap(cs.total_similarity))(stacked)
    expected = list(map(oracle.convolutional_similarity, stacked["a"]["kernel"]))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def arithmetic(jaxpr):
    """How many multiplications and matrix products a program holds, at any depth."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name in ("mul", "dot_general")
        count += sum(map(arithmetic, jaxprs_in_params(equation.params)))
    return count


def test_layers_of_one_shape_share_one_program():
    def program(depth):
        params = {f"{i}": {"kernel": single(i, (2, 2, 2, 3))} for i in range(depth)}
        return arithmetic(jax.make_jaxpr(cs.total_similarity)(params).jaxpr)

    assert program(2) == program(7) > 0


@pytest.mark.parametrize("most", [0, 20, 10**6])
def test_kernels_are_summed_whether_stacked_or_alone(most):
    result = sum_over_layers(choose_kernels(layers()), Objective(), most)
    expected = oracle.total_similarity(kernels(layers()))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


# The report.

PARAMS = {
    "stem": {"kernel": single(0, (2, 3, 1, 4)), "bias": jnp.ones(4)},
    "a_block_of_a_long_name": {"conv": {"kernel": 100 * single(1, (1, 1, 3, 12))}},
    "head": {"kernel": single(2, (4, 2))},
}


def check_row(row, kernel, **options):
    cosines = oracle.kernel_cosine_similarity(kernel)
    groups = options.get("feature_group_count", 1)
    pairs = list(oracle.pairs_of(kernel.shape[-1], "all", groups))
    expected = {
        "norm": np.linalg.norm(oracle.float64(kernel)),
        "similarity": oracle.convolutional_similarity(kernel, **options),
        "scale_free": oracle.convolutional_similarity(kernel, normalize=True, **options),
        "kernel_cosine": np.mean([abs(cosines[pair]) for pair in pairs]),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(row, name), value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("pairs", ["all", "adjacent"])
@pytest.mark.parametrize("channels", ["matched", "cross"])
def test_report_of_each_layer(pairs, channels):
    options = {"pairs": pairs, "channels": channels}
    rows = cs.similarity_report(PARAMS, **options).layers
    found = cs.conv_kernels(PARAMS)
    assert {row.path: row.shape for row in rows} == {k: x.shape for k, x in found.items()}
    for row in rows:
        check_row(row, found[row.path], **options)


@pytest.mark.parametrize("outputs", [1, 3])
def test_one_channel_or_zero_kernels_are_not_similar(outputs):
    kernel = jnp.zeros((2, 2, 1, outputs)) if outputs > 1 else jnp.ones((2, 2, 1, 1))
    (layer,) = cs.similarity_report({"kernel": kernel}).layers
    assert layer.similarity == layer.scale_free == layer.kernel_cosine == 0
    assert layer.norm == (0 if outputs > 1 else 2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_kernels_are_reported_without_overflow(dtype):
    """Numbers for people, not of the kernel's dtype: the norm alone is over 65504."""
    kernel = (20000 * single(4, (2, 2, 4, 4)).clip(-3, 3)).astype(dtype)
    (row,) = cs.similarity_report({"kernel": kernel}).layers
    check_row(row, kernel)


def test_table_has_a_row_for_each_layer():
    report = cs.similarity_report(PARAMS)
    header, *rows = str(report).splitlines()
    assert header.split() == [
        "kernel",
        "shape",
        "norm",
        "similarity",
        "scale-free",
        "kernel",
        "cosine",
    ]
    for layer, row in zip(report.layers, rows, strict=True):
        path, _, *numbers = row.split()
        assert path == layer.path
        expected = (layer.norm, layer.similarity, layer.scale_free, layer.kernel_cosine)
        np.testing.assert_allclose([float(x) for x in numbers], expected, rtol=2e-3)
    assert len({len(line) for line in (header, *rows)}) == 1


def test_what_is_the_same_for_any_kernel_is_marked_and_not_in_the_mean():
    shapes = {"a": (3, 3, 2, 4), "b": (1, 1, 2, 4), "c": (3, 3, 4, 1)}
    params = {name: {"kernel": single(8, shape)} for name, shape in shapes.items()}
    a, b, c = (report := cs.similarity_report(params, channels="cross")).layers
    assert (a.constant, b.constant, c.constant) == (False, True, True)
    np.testing.assert_allclose(b.scale_free, 1)
    assert report.scale_free == a.scale_free
    assert [line.count("*") for line in str(report).splitlines()] == [0, 0, 1, 1, 1]
    matched = cs.similarity_report(params)
    assert [layer.constant for layer in matched.layers] == [False, False, True]
    mean = np.mean([layer.scale_free for layer in matched.layers[:2]])
    np.testing.assert_allclose(matched.scale_free, mean)
    assert np.isnan(cs.similarity_report(params["c"]).scale_free)


# Layers of a network: groups, strides, dilation, transposition, stacks.

BY_HAND = {
    "stack": ((3, 2, 3, 2, 4), {"feature_group_count": 2}),
    "strided": ((3, 3, 4, 3), {"strides": (1, 3)}),  # (2, 3) over the gcd of dilation
    "transposed": ((3, 2, 3, 4), {"strides": (2, 2), "transposed": True}),
    "one_lag": ((2, 2, 4, 3), {"strides": (2, 2)}),
}


def network(params, x):
    def layer(x, kernel):
        return convolve(x, kernel, feature_group_count=2), None

    x, _ = jax.lax.scan(layer, x, params["stack"])
    x = convolve(x, params["strided"], (2, 3), rhs_dilation=(4, 1))
    x = jax.lax.conv_transpose(x, params["transposed"], (2, 2), "SAME")
    return convolve(x, params["one_lag"], (2, 2))


@pytest.mark.parametrize("channels", ["matched", "cross"])
def test_layers_know_groups_strides_and_what_is_transposed(channels):
    params = {name: single(5, shape) for name, (shape, _) in BY_HAND.items()}
    found = cs.conv_layers(network, params, jnp.ones((1, 8, 8, 4)))
    one_by_one = {
        (f"{name}[{n}]" if name == "stack" else name): (kernel, options)
        for name, (_, options) in BY_HAND.items()
        for n, kernel in enumerate(params[name] if name == "stack" else [params[name]])
    }
    rows = cs.similarity_report(params, layers=found, channels=channels).layers
    assert [row.path for row in rows] == list(one_by_one)
    for row, (kernel, options) in zip(rows, one_by_one.values(), strict=True):
        check_row(row, kernel, channels=channels, **options)
        assert row.constant == (row.path == "one_lag" and channels == "cross")
    options = {"channels": channels, "normalize": True}
    result = cs.total_similarity(params, layers=found, **options)
    expected = sum(
        oracle.convolutional_similarity(kernel, **own, **options)
        for kernel, own in one_by_one.values()
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"feature_group_count is given beside layers"):
        cs.total_similarity(params, layers=found, feature_group_count=2)


# What every function of a network says of an option that is wrong.

FUNCTIONS = {
    "total": cs.total_similarity,
    "report": cs.similarity_report,
    "minimize": lambda params, **options: cs.minimize_similarity(params, 1, **options),
    "transform": lambda params, **options: cs.add_convolutional_similarity(
        0.5, **options
    ).init(params),
}
TWO = {"a": {"kernel": jnp.ones((2, 2, 2, 4))}, "b": {"kernel": jnp.ones((1, 2, 2, 6))}}
NO_PATH = "feature_group_count names 'z/kernel'.*a/kernel.*b/kernel"


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "some"}, "pairs is 'some'.*'all' or 'adjacent'"),
        ({"channels": "mixed"}, "channels is 'mixed'.*'matched' or 'cross'"),
        ({"normalize": 1}, "normalize is 1.*True or False"),
        ({"layout": "OHWI"}, "layout is 'OHWI'.*'HWIO' or 'OIHW'"),
        ({"feature_group_count": 4}, "feature_group_count is 4.*6 output.*b/kernel"),
        ({"feature_group_count": {"a/kernel": 3}}, "feature_group_count is 3.*a/kernel"),
        ({"feature_group_count": {"z/kernel": 2}}, NO_PATH),
        ({"mask": {"a": True}}, "mask has no leaf for 'b/kernel'"),
        ({"mask": lambda p: jax.tree.map(lambda _: False, p)}, "no conv kernel"),
    ],
)
def test_rejects(function, options, message):
    if (function, *options) != ("report", "normalize"):  # which it has not
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[function](TWO, **options)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": True, "channels": "cross"}], ids=str
)
def test_the_gradients_of_all_layers_are_not_in_memory_together(options):
    """A loop of training adds them to what it has."""
    shape = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)  # no stack: too large
    params = {f"conv{i}": {"kernel": shape} for i in range(12)}

    def step(params):
        gradient = jax.grad(partial(cs.total_similarity, **options))(params)
        return jax.tree.map(lambda x, g: x - 0.1 * g, params, gradient)

    program = jax.jit(step, donate_argnums=0).lower(params).compile()
    weights = 12 * shape.size * shape.dtype.itemsize
    assert program.memory_analysis().temp_size_in_bytes < 0.8 * weights


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "scale-free"])
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_a_layer_that_is_no_number_leaves_the_gradients_of_others_alone(normalize, pairs):
    shapes = [(3, 3, 2, 4), (2, 2, 2, 4), (3, 2, 2, 4), (2, 3, 2, 4), (1, 3, 2, 4)]
    kernels = [single(i, shape) for i, shape in enumerate(shapes)]

    @jax.jit
    def gradient(kernels):
        params = [{"kernel": kernel} for kernel in kernels]
        options = {"normalize": normalize, "pairs": pairs}
        return jax.grad(partial(cs.total_similarity, **options))(params)

    expected = gradient(kernels)
    found = gradient([kernels[0].at[0].set(jnp.nan), *kernels[1:]])
    assert np.isnan(found[0]["kernel"]).any()
    for one, other in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(one["kernel"], other["kernel"], rtol=1e-5)
