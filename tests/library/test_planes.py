"""Planes: sums and arrays of one pass, their derivatives, and transposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convsim_jax import _planes
from convsim_jax._pairs import (
    number_of_pairs,
    scale_free_sum_and_gradient,
    sum_and_gradient,
)
from convsim_jax._planes import form_of
from convsim_jax._xla import column_sum, column_sums, in_one_pass, row_sums
from tests.library import oracle
from tests.library.kernel_cases import normal

TRANSFORMED = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "jit of vmap": lambda f: jax.jit(jax.vmap(f)),
}
several_or_one = pytest.mark.parametrize("count", [1, 2, 5])


def sums_of_rows(xs):
    taps = jnp.concatenate(xs)
    return row_sums(lambda taps: jnp.split(taps, len(xs)), taps)


def arrays(count, seed=0):
    return [jnp.asarray(normal(seed + i, (3, 2, 4))) for i in range(count)]


@pytest.mark.usefixtures("x64")
@several_or_one
@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
def test_written_arrays_are_the_same(count, transform):
    def shared(xs):
        return in_one_pass([sum(xs) * x for x in xs])

    xs = arrays(count)
    result = transform(shared)(xs)
    assert len(result) == count
    for x, y in zip(xs, result, strict=True):
        np.testing.assert_allclose(y, sum(map(np.asarray, xs)) * x, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@several_or_one
@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
def test_derivatives_of_what_is_written(count, transform):
    """Of the sum of `(i + 1) x_i^3`: once forward, once and twice backward."""

    def cubes(xs):
        ys = in_one_pass([x**3 for x in xs])
        return jnp.stack([(i + 1) * y.sum() for i, y in enumerate(ys)]).sum()

    def first(xs):
        return jax.grad(cubes)(xs)

    def second(xs):
        return jax.grad(lambda xs: sum(g.sum() for g in first(xs)))(xs)

    def forward(xs):
        return jax.jvp(cubes, (xs,), (xs,))[1]

    xs = arrays(count)
    slopes = [3 * (i + 1) * np.square(x) for i, x in enumerate(xs)]
    curvatures = [6 * (i + 1) * np.asarray(x) for i, x in enumerate(xs)]
    for result, expected in (
        (transform(first)(xs), slopes),
        (transform(second)(xs), curvatures),
    ):
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    along = sum((g * x).sum() for g, x in zip(slopes, xs, strict=True))
    np.testing.assert_allclose(transform(forward)(xs).sum(), along, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@several_or_one
@pytest.mark.parametrize("function", [column_sums, sums_of_rows, column_sum])
def test_sums_of_several_arrays_and_their_derivatives(count, function):
    def squares(xs):
        return jnp.sum(function(xs) ** 2)

    xs = arrays(count)
    stack = np.stack(xs)
    expected = {
        column_sums: stack.sum(-1),
        sums_of_rows: stack.sum(-2),
        column_sum: stack.sum((0, 1, 2)),
    }[function]
    np.testing.assert_allclose(function(xs), expected, rtol=1e-12)
    axis = {column_sums: -1, sums_of_rows: -2, column_sum: (0, 1, 2)}[function]
    slopes = np.broadcast_to(2 * np.expand_dims(expected, axis), stack.shape)
    for gradient in (jax.grad(squares), jax.jit(jax.grad(squares))):
        np.testing.assert_allclose(gradient(xs), slopes, rtol=1e-12)


@pytest.fixture(params=[True, False], ids=["CPU", "accelerator"])
def on_each_backend(request, monkeypatch):
    """Planes across channels are one array, or apart."""
    monkeypatch.setattr(_planes, "default_is_cpu", lambda: request.param)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", [(1, 1), (3, 2), (2, 2, 2), (11,), (4, 3)], ids=str)
@pytest.mark.parametrize("cross", [False, True], ids=["matched", "cross"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradient_of_planes_is_their_transpose(
    window, cross, stride, transposed, on_each_backend
):
    kernel = jnp.asarray(normal(1, (*window, 4, 3)))
    strides = (stride,) * len(window)
    form = form_of(kernel, cross=cross, strides=strides, transposed=transposed)
    taps = kernel.reshape(-1, 4, 3)

    def planes_of(taps):
        return list(form.planes(form.source(taps)))

    planes, transpose = jax.vjp(planes_of, taps)
    slopes = [jnp.asarray(normal(3 + i, Y.shape)) for i, Y in enumerate(planes)]
    gradient, product = form.gradient(slopes, taps, with_product=not cross)
    np.testing.assert_allclose(gradient, *transpose(slopes), rtol=1e-12, atol=1e-12)
    expected = 0 if cross else np.sum(taps * gradient)
    np.testing.assert_allclose(product, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("platform", "reductions"), [("cpu", 1), ("cuda", 0)])
def test_arrays_are_reduced_on_cpus_alone(platform, reductions):
    program = jax.jit(lambda xs: in_one_pass([2 * x for x in xs])).trace(arrays(3))
    text = program.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.reduce(") == reductions


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", [(1, 1), (3, 2), (7, 7)], ids=str)
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "scale-free"])
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_sums_across_channels_and_their_gradients(
    window, normalize, pairs, on_each_backend
):
    """Whichever form planes have; the gradient along a direction, by differences."""
    kernel, direction = normal(1, (*window, 2, 4)), normal(2, (*window, 2, 4))
    sum_of = scale_free_sum_and_gradient if normalize else sum_and_gradient
    factor = (1 / number_of_pairs(4, adjacent=pairs == "adjacent"),) if normalize else ()
    taps = jnp.asarray(kernel.reshape(-1, 2, 4))
    form = form_of(jnp.asarray(kernel), cross=True)
    value, gradient = sum_of(form, taps, *factor, adjacent=pairs == "adjacent")

    def expected(kernel):
        options = {"pairs": pairs, "channels": "cross", "normalize": normalize}
        return oracle.convolutional_similarity(kernel, **options)

    np.testing.assert_allclose(value, expected(kernel), rtol=1e-10)
    along = np.sum(gradient * direction.reshape(taps.shape))
    slope = oracle.slope(expected, kernel, direction)
    np.testing.assert_allclose(along, slope, rtol=1e-6, atol=1e-8)
