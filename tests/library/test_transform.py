"""The transformation: what it adds, to which leaves of which trees, in which numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convsim_jax as cs
from tests.library import oracle
from tests.library.transform_case import (
    LEARNING_RATE,
    PARAMS,
    STRENGTH,
    UPDATES,
    added,
    assert_added,
    one_update,
    similarity_gradient,
    tree,
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": "adjacent"},
        {"channels": "cross", "normalize": True},
        {"feature_group_count": 3},
    ],
    ids=str,
)
def test_adds_the_gradient_and_leaves_the_rest(options):
    transformation = cs.add_convolutional_similarity(STRENGTH, **options)
    assert_added(one_update(transformation), added(**options))


@pytest.mark.parametrize(
    "strength",
    [0, 0.25, np.float32(0.25), np.array(0.25), jnp.array(2)],
    ids=lambda s: f"{type(s).__name__}-{s}",
)
def test_strength_is_any_scalar(strength):
    """Without `jit`, which is around every other update here."""
    transformation = cs.add_convolutional_similarity(strength)
    updates, state = transformation.update(UPDATES, transformation.init(PARAMS), PARAMS)
    assert_added(updates, added(strength=float(strength)))
    assert state.count == 1


# Trees of other libraries.


NAMES = ("first", "second")


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(2, 3, (2, 2), rngs=rngs)
        self.second = nnx.Conv(2, 3, (2, 2), rngs=rngs)


def only_second(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, x: "second" in str(path) and x.ndim == 4, params
    )


@pytest.mark.parametrize("mask", ["none", "callable", "tree"])
def test_nnx_optimizer(mask):
    model = NnxNet(nnx.Rngs(0))
    masks = {
        "none": None,
        "callable": only_second,
        "tree": only_second(nnx.state(model, nnx.Param)),
    }
    before = {name: oracle.float64(getattr(model, name).kernel[...]) for name in NAMES}
    similarity = cs.add_convolutional_similarity(STRENGTH, mask=masks[mask])
    optimizer = nnx.Optimizer(
        model, optax.chain(similarity, optax.sgd(LEARNING_RATE)), wrt=nnx.Param
    )

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return sum(0.5 * jnp.sum(getattr(model, n).kernel[...] ** 2) for n in NAMES)

        optimizer.update(model, nnx.grad(loss)(model))

    step(model, optimizer)
    for name, kernel in before.items():
        gradient = kernel  # of the loss
        if mask == "none" or name == "second":
            gradient = gradient + STRENGTH * similarity_gradient(kernel)
        expected = kernel - LEARNING_RATE * gradient
        result = getattr(model, name).kernel[...]
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_equinox_module_with_none_leaves():
    conv = eqx.nn.Conv2d(1, 3, (2, 3), key=jax.random.key(0))
    model = eqx.nn.Sequential([conv, eqx.nn.Lambda(jax.nn.relu)])
    params = eqx.filter(model, eqx.is_inexact_array)
    transformation = cs.add_convolutional_similarity(STRENGTH, layout="OIHW")
    updates = jax.tree.map(jnp.ones_like, params)
    result = one_update(transformation, updates, params)
    assert jax.tree.structure(result) == jax.tree.structure(updates)
    kernel = jnp.transpose(conv.weight, (2, 3, 1, 0))
    expected = np.transpose(1 + STRENGTH * similarity_gradient(kernel), (3, 2, 0, 1))
    np.testing.assert_allclose(result[0].weight, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result[0].bias, 1)


@pytest.mark.parametrize("everywhere", [False, True])
def test_none_updates_stay_none(everywhere):
    """Of a frozen layer, or of all."""
    params = {"a": PARAMS, "frozen": tree(20)}
    none = jax.tree.map(lambda _: None, PARAMS)
    updates = {"a": none if everywhere else UPDATES, "frozen": none}
    result = one_update(cs.add_convolutional_similarity(STRENGTH), updates, params)
    assert result["frozen"] == none
    if everywhere:
        assert result["a"] == none
    else:
        assert_added(result["a"], added())


def test_integer_parameters_pass_by():
    params = {**PARAMS, "step": jnp.array(3), "mask": jnp.array([True])}
    updates = {**UPDATES, "step": None, "mask": jnp.array([False])}
    result = one_update(cs.add_convolutional_similarity(STRENGTH), updates, params)
    assert_added(result, added())
    assert result["step"] is None
    np.testing.assert_array_equal(result["mask"], updates["mask"])


# Numbers.


@pytest.mark.parametrize(
    ("of_params", "of_updates"),
    [
        (jnp.float16, jnp.float16),
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float32, jnp.bfloat16),
        (jnp.float16, jnp.float32),
        (jnp.float64, jnp.float64),
    ],
)
@pytest.mark.usefixtures("x64")
def test_updates_keep_their_dtype_and_round_once(of_params, of_updates):
    params, updates = tree(0, of_params), tree(10, of_updates)
    transformation = cs.add_convolutional_similarity(jnp.float32(STRENGTH))
    result = one_update(transformation, updates, params)
    assert all(leaf.dtype == of_updates for leaf in jax.tree.leaves(result))
    exact = added(updates, params)
    error = np.abs(oracle.float64(result["conv"]["kernel"]) - exact)
    half_unit = float(jnp.finfo(of_updates).eps) / 2
    slack = 1e-9 if of_updates == jnp.float64 else 1e-6
    assert np.all(error <= half_unit * np.abs(exact) * 1.001 + slack)


# Errors.


@pytest.mark.parametrize(
    "strength",
    [-0.1, np.float32(-2), np.nan, jnp.array(np.inf), jnp.ones(3), "0.1", None],
)
def test_strength_is_a_number_finite_and_not_negative(strength):
    with pytest.raises(ValueError, match=r"strength is .*expected a finite.*0 or.*sched"):
        cs.add_convolutional_similarity(strength)
