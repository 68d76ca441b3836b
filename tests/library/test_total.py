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


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def layers(dtype=jnp.float32):
    """Two layers of one shape, between them another, and what is no conv."""
    return {
        "a": {"kernel": normal(0, (2, 2, 2, 4), dtype), "bias": jnp.ones(4, dtype)},
        "b": {"kernel": normal(1, (1, 2, 1, 6), dtype)},
        "c": {"kernel": normal(2, (2, 2, 2, 4), dtype)},
        "dense": {"kernel": normal(3, (4, 2), dtype)},
        "step": jnp.array(7),
    }


def kernels(params):
    return [params[name]["kernel"] for name in "abc"]


OPTIONS = [
    {},
    {"pairs": "adjacent"},
    {"channels": "cross"},
    {"channels": "cross", "normalize": True},
    {"pairs": "adjacent", "normalize": True, "feature_group_count": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_is_the_sum_over_layers(options):
    params = layers()
    result = cs.total_similarity(params, **options)
    expected = sum(
        oracle.convolutional_similarity(kernel, **options) for kernel in kernels(params)
    )
    assert result.shape == ()
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_gradient_of_each_layer_is_its_own():
    params = layers()
    trained = {name: params[name]["kernel"] for name in "abc"}

    def total(trained):
        tree = {name: {"kernel": kernel} for name, kernel in trained.items()}
        return cs.total_similarity(tree, normalize=True)

    result = jax.jit(jax.grad(total))(trained)
    for name, kernel in trained.items():
        expected = oracle.gradient(
            lambda k: oracle.convolutional_similarity(k, normalize=True), kernel
        )
        assert oracle.relative_error(result[name], expected) < 1e-5


@pytest.mark.parametrize("groups", [{"b/kernel": 3}, {"c/kernel": 2}])
def test_groups_of_each_layer_by_path(groups):
    """Also of one of two layers of one shape."""
    params = layers()
    result = cs.total_similarity(params, feature_group_count=groups)
    expected = sum(
        oracle.convolutional_similarity(kernel, feature_group_count=groups.get(path, 1))
        for path, kernel in cs.conv_kernels(params).items()
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (jnp.float16, jnp.float16, jnp.float16),
        (jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
        (jnp.float64, jnp.float64, jnp.float64),
        (jnp.bfloat16, jnp.float32, jnp.float32),
        (jnp.float16, jnp.float64, jnp.float64),
        (jnp.float16, jnp.bfloat16, jnp.float32),
    ],
)
def test_the_sum_has_the_widest_dtype_and_rounds_once(first, second, dtype):
    params = layers(first) | {"b": {"kernel": normal(1, (1, 2, 1, 6), second)}}
    result = cs.total_similarity(params)
    assert result.dtype == dtype
    expected = oracle.total_similarity(kernels(params))
    most = 1e-12 if first == jnp.float64 else max(jnp.finfo(dtype).eps, 1e-6)
    assert oracle.relative_error(result, expected) <= most


def test_under_jit_and_vmap():
    params = [{"a": {"kernel": normal(i, (1, 2, 1, 3))}} for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    result = jax.jit(jax.vmap(cs.total_similarity))(stacked)
    expected = [oracle.convolutional_similarity(p["a"]["kernel"]) for p in params]
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
        params = {f"{i}": {"kernel": normal(i, (2, 2, 2, 3))} for i in range(depth)}
        return arithmetic(jax.make_jaxpr(cs.total_similarity)(params).jaxpr)

    assert program(2) == program(7) > 0


@pytest.mark.parametrize("most", [0, 40, 10**6])
def test_kernels_are_summed_whether_stacked_or_alone(most):
    shapes = [(3, 3, 3, 4), (3, 3, 3, 4), (3, 3, 2, 4), (3, 3, 2, 4), (1, 1, 4, 2)]
    random = np.random.default_rng(0)
    kernels = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    params = {str(i): {"kernel": kernel} for i, kernel in enumerate(kernels)}
    exact = sum(oracle.convolutional_similarity(kernel) for kernel in kernels)
    result = sum_over_layers(choose_kernels(params), Objective(), most)
    np.testing.assert_allclose(result, exact, rtol=1e-5)


def test_layers_know_groups_strides_and_what_is_transposed():
    def apply(params, x):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        x = jax.lax.conv_general_dilated(
            x, params["grouped"], (1, 1), "SAME", feature_group_count=2, **options
        )
        x = jax.lax.conv_general_dilated(
            x, params["strided"], (2, 3), "SAME", rhs_dilation=(4, 1), **options
        )
        return jax.lax.conv_transpose(x, params["transposed"], (2, 2), "SAME")

    shapes = {
        "grouped": (2, 3, 2, 4),
        "strided": (3, 3, 4, 3),
        "transposed": (3, 2, 3, 4),
    }
    params = {name: normal(i, shape) for i, (name, shape) in enumerate(shapes.items())}
    layers = cs.conv_layers(apply, params, jnp.ones((1, 8, 8, 4)))
    by_hand = {
        "grouped": {"feature_group_count": 2},
        "strided": {"strides": (1, 3)},  # (2, 3) over the gcd with the dilation
        "transposed": {"strides": (2, 2), "transposed": True},
    }
    options = {"channels": "cross", "normalize": True}
    expected = sum(
        oracle.convolutional_similarity(params[name], **own, **options)
        for name, own in by_hand.items()
    )
    result = cs.total_similarity(params, layers=layers, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"feature_group_count is given beside layers"):
        cs.total_similarity(params, layers=layers, feature_group_count=2)
