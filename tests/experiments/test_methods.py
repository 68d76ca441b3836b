"""Methods: what each does to the kernels before training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convsim_jax as cs
from experiments.methods import METHODS, PAPER, SCALE_FREE


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "Conv_0": {
            "kernel": jax.random.normal(keys[0], (3, 3, 1, 4)),
            "bias": jax.random.normal(keys[1], (4,)),
        },
        "Conv_1": {"kernel": jax.random.normal(keys[2], (3, 3, 4, 2))},
        "Dense_0": {"kernel": jax.random.normal(keys[3], (8, 3))},
    }


def halve_and_shift(params, objective):
    """Stands in for a minimiser, of which only the conv kernels' norms matter."""
    kernels = {
        layer: params[layer]["kernel"][..., ::-1] * factor
        for layer, factor in (("Conv_0", 0.5), ("Conv_1", 0.25))
    }
    return params | {
        layer: params[layer] | {"kernel": kernel} for layer, kernel in kernels.items()
    }


def test_control_takes_the_norms_of_paper_init_and_nothing_else(params):
    seen = []

    def minimize(params, objective):
        seen.append(objective)
        return halve_and_shift(params, objective)

    scaled = METHODS["control"].initialize(params, minimize)
    reached = METHODS["paper-init"].initialize(params, minimize)
    assert seen == [PAPER, PAPER]
    for layer in ("Conv_0", "Conv_1"):
        kernel, expected, random = (
            np.asarray(tree[layer]["kernel"], np.float64)
            for tree in (scaled, reached, params)
        )
        norm = np.linalg.norm(expected)
        np.testing.assert_allclose(np.linalg.norm(kernel), norm, rtol=1e-5)
        cosine = (kernel * random).sum() / np.linalg.norm(random) / norm
        np.testing.assert_allclose(cosine, 1, rtol=1e-5)
    for layer, leaf in (("Conv_0", "bias"), ("Dense_0", "kernel")):
        np.testing.assert_array_equal(scaled[layer][leaf], params[layer][leaf])


def test_scale_free_scaled_halves_kernels_whose_norms_were_kept(params):
    seen = []

    def minimize(params, objective, preserve_norm):
        seen.append((objective, preserve_norm))
        return params

    result = METHODS["scale-free-scaled"].initialize(params, minimize)
    assert seen == [(SCALE_FREE, True)]
    for layer in ("Conv_0", "Conv_1"):
        half = params[layer]["kernel"] / 2
        np.testing.assert_array_equal(result[layer]["kernel"], half)
    for layer, leaf in (("Conv_0", "bias"), ("Dense_0", "kernel")):
        np.testing.assert_array_equal(result[layer][leaf], params[layer][leaf])


@pytest.mark.parametrize("name", ["none", "paper-reg", "decay", "scale-free-reg"])
def test_other_methods_start_from_the_random_weights(name, params):
    assert METHODS[name].initialize(params, halve_and_shift) is params


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("paper", {}),
        ("scale-free", {"channels": "cross", "normalize": True}),
    ],
)
def test_objectives_are_the_library_s(name, options, params):
    objectives = []
    METHODS[f"{name}-init"].initialize(params, lambda _, given: objectives.append(given))
    value = cs.total_similarity(params, **objectives[0]._asdict())
    np.testing.assert_array_equal(value, cs.total_similarity(params, **options))
    slope = jax.grad(lambda p: cs.total_similarity(p, pairs="adjacent", **options))(
        params
    )
    assert_adds(METHODS[f"{name}-reg"], params, slope)


@pytest.mark.parametrize("name", ["decay", "scale-free-decay"])
def test_decay_is_of_conv_kernels_alone(name, params):
    kept = {"Conv_0": {"kernel": True, "bias": False}, "Conv_1": {"kernel": True}}
    kept |= {"Dense_0": {"kernel": False}}
    decaying = jax.tree.map(
        lambda leaf, is_kernel: leaf if is_kernel else 0 * leaf, params, kept
    )
    assert_adds(METHODS[name], params, decaying)


def test_scale_free_decay_begins_with_kernels_whose_norms_were_kept(params):
    seen = []
    METHODS["scale-free-decay"].initialize(
        params, lambda params, *given, **norm: seen.append((*given, norm))
    )
    assert seen == [(SCALE_FREE, {"preserve_norm": True})]


def assert_adds(method, params, slope):
    """That a method adds this gradient, times the strength, to the updates."""
    adding = method.regularizer(0.5, "adjacent")
    updates = jax.tree.map(jnp.ones_like, params)
    result, _ = adding.update(updates, adding.init(params), params)
    expected = jax.tree.map(lambda leaf: 1 + 0.5 * leaf, slope)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        result,
        expected,
    )
