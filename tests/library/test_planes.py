"""Planes: sums and arrays of one pass, their derivatives, and transposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convsim_jax._planes import form_of
from convsim_jax._xla import in_one_pass, sums_in_one_pass
from tests.library.kernel_cases import normal

TRANSFORMED = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "jit of vmap": lambda f: jax.jit(jax.vmap(f)),
}
several_or_one = pytest.mark.parametrize("count", [1, 2, 5])


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


@pytest.mark.usefixtures("x64")
@several_or_one
@pytest.mark.parametrize("axis", [-1, -2])
def test_sums_of_several_arrays_and_their_derivatives(count, axis):
    def squares(xs):
        return jnp.stack([y**2 for y in sums_in_one_pass(xs, axis)]).sum()

    xs = arrays(count)
    sums = [np.asarray(x).sum(axis, keepdims=True) for x in xs]
    for a, b in zip(sums_in_one_pass(xs, axis), sums, strict=True):
        np.testing.assert_allclose(a, b.squeeze(axis), rtol=1e-12)
    for a, x, b in zip(jax.jit(jax.grad(squares))(xs), xs, sums, strict=True):
        np.testing.assert_allclose(a, np.broadcast_to(2 * b, x.shape), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", [(1, 1), (3, 2), (2, 2, 2), (11,), (4, 3)], ids=str)
@pytest.mark.parametrize("cross", [False, True], ids=["matched", "cross"])
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_gradient_of_planes_is_their_transpose(window, cross, scaled):
    kernel = jnp.asarray(normal(1, (*window, 4, 3)))
    form, taps = form_of(kernel, cross=cross), kernel.reshape(-1, 4, 3)
    scale = [jnp.asarray(normal(2, (1, 1, 3)))] if scaled else []

    def planes_of(taps):
        return list(form.planes(taps, *scale))

    planes, transpose = jax.vjp(planes_of, taps)
    same = taps * scale[0] if scaled else taps
    for Y, Z in zip(planes, form.planes(same), strict=True):
        np.testing.assert_allclose(Y, Z, rtol=1e-12, atol=1e-12)
    slopes = [jnp.asarray(normal(3 + i, Y.shape)) for i, Y in enumerate(planes)]
    gradient, along = form.gradient(slopes, taps, *scale)
    np.testing.assert_allclose(gradient, *transpose(slopes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(along, np.sum(taps * gradient), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("platform", "reductions"), [("cpu", 1), ("cuda", 0)])
def test_arrays_are_reduced_on_cpus_alone(platform, reductions):
    program = jax.jit(lambda xs: in_one_pass([2 * x for x in xs])).trace(arrays(3))
    text = program.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.reduce(") == reductions
