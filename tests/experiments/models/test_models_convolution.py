"""Convolutions and pooling of the networks against XLA's and Flax's own."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from experiments.models import convolution
from experiments.models.convolution import compiler_options, convolve
from experiments.models.layers import HE, max_pool

xla = partial(jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def operands(window, size=(9, 8), groups=1):
    random = np.random.default_rng(0)
    images = random.standard_normal((2, *size, 2 * groups))
    return images, random.standard_normal((*window, 2, 3 * groups))


def value_and_gradients(conv, *options):
    """Of a sum that weighs every output differently."""
    return jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k, *options))), (0, 1))


def assert_agree(function, *arguments):
    """That what a function makes of both convolutions is the same; one compilation."""
    both = jax.jit(lambda *arguments: [function(c)(*arguments) for c in (convolve, xla)])
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), *both(*arguments)
    )


@pytest.mark.parametrize(
    ("window", "options"),
    [
        *(((n, n), ((s, s), "SAME")) for n in (1, 3, 7) for s in (1, 2)),
        ((1, 1), ((2, 1), ((1, 0), (0, 2)))),
        ((2, 5), ((3, 2), "VALID")),  # leaves a row and a column over
        ((3, 2), ((1, 1), ((4, 0), (0, 3)))),  # more zeros than the window reaches
        ((3, 2), ((1, 2), "SAME", None, (2, 3))),
        ((3, 2), ((2, 1), ((1, 0), (2, 2)), (3, 2), (1, 2))),
    ],
)
def test_convolve_is_exact_with_its_gradients(window, options, x64):
    assert_agree(lambda conv: value_and_gradients(conv, *options), *operands(window))


def test_second_derivatives(x64):
    def curvature(conv):
        def slope(x, k):
            return jnp.sum(value_and_gradients(conv, (2, 2), "SAME")(x, k)[1][1] ** 2)

        return jax.grad(slope, (0, 1))

    assert_agree(curvature, *operands((3, 3), size=(4, 4)))


def test_kernels_of_several_seeds(x64):
    images, kernel = operands((3, 3))
    kernels = np.stack([kernel, -2 * kernel, kernel**2])

    def seeds(conv):
        one = value_and_gradients(conv, (1, 1), "SAME")
        if conv is convolve:
            return jax.vmap(one, (None, 0))
        return lambda images, kernels: jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[one(images, k) for k in kernels]
        )

    assert_agree(seeds, images, kernels)


@pytest.mark.parametrize("other", ["groups", "axes", "backend"])
def test_others_are_left_to_xla(other, monkeypatch):
    images, kernel = operands((3, 3), groups=3 if other == "groups" else 1)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    if other == "groups":
        options["feature_group_count"] = 3
    elif other == "axes":
        images, kernel = images[:, 0], kernel[0]
        options["dimension_numbers"] = ("NWC", "WIO", "NWC")
    else:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert compiler_options.__wrapped__() == {}
    found, expected = (
        jax.make_jaxpr(partial(conv, padding="SAME", **options), static_argnums=2)(
            images, kernel, (2,) * (images.ndim - 2)
        )
        for conv in (convolve, jax.lax.conv_general_dilated)
    )
    assert str(found) == str(expected)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("seeds", [None, 3])
def test_gradients_have_the_form_that_is_fast_in_loops(strides, seeds):
    images, kernel = operands((3, 3))
    function = value_and_gradients(convolve, strides, "SAME")
    if seeds:
        kernel = np.stack([kernel] * seeds)
        function = jax.vmap(function, (None, 0))
    text = jax.jit(function).lower(images, kernel).as_text()
    convolutions = re.findall(r"stablehlo\.convolution.*", text)
    assert len(convolutions) == 3
    for line in convolutions:
        assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
        assert "feature_group_count = 1" in line
        assert "reverse = [true" not in line


def test_compiler_options(monkeypatch):
    x = np.arange(3.0, dtype="f4")
    program = jax.jit(jnp.cumsum).lower(x).compile(compiler_options=compiler_options())
    np.testing.assert_array_equal(program(x), [0, 1, 3])
    monkeypatch.setattr(convolution, "OPTIONS", {"xla_of_another_version": "1"})
    assert compiler_options.__wrapped__() == {}


def test_max_pool_is_flax_max_pool():
    images = np.random.default_rng(0).standard_normal((2, 8, 11, 3)).astype("f4")

    @jax.jit
    def both(images):
        pools = max_pool, lambda x: nn.max_pool(x, (2, 2), strides=(2, 2))
        return [
            jax.value_and_grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(images)
            for pool in pools
        ]

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), *both(images))


def test_he_initialization():
    kernel = jax.jit(HE, static_argnums=1)(jax.random.key(0), (3, 3, 32, 64))
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.02)
    assert abs(kernel).max() > 3.5 * kernel.std()  # not cut off at two deviations


@pytest.mark.parametrize(
    ("window", "size", "strides", "by_product"),
    [
        ((3, 3), (2, 2), (1, 1), True),
        ((1, 5), (4, 1), (1, 1), True),
        ((3, 3), (3, 3), (1, 1), False),
        ((1, 1), (5, 4), (2, 1), True),
    ],
)
def test_training_takes_products_where_they_are_faster(
    window, size, strides, by_product, x64
):
    given = operands(window, size)
    padding = [(w // 2, w // 2) for w in window]
    with_gradients = partial(value_and_gradients, convolve, strides, padding)
    assert_agree(lambda conv: value_and_gradients(conv, strides, padding), *given)
    program = str(jax.make_jaxpr(with_gradients())(*given))
    assert ("conv_general" not in program) == by_product
    # Its maps are seen nevertheless.
    of_kernel = cs.with_feature_maps(lambda k: convolve(given[0], k, strides, padding))
    output, maps = of_kernel(given[1])
    np.testing.assert_array_equal(output, *maps.values())
