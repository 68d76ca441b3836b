"""Where the transformation stands: beside an optimizer, inside wrappers of optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import convolve
from tests.library.transform_case import (
    LEARNING_RATE,
    PARAMS,
    STRENGTH,
    UPDATES,
    added,
    assert_added,
    normal,
    one_update,
    similarity_gradient,
    tree,
)

MOMENTUM = 0.9


# Coupled and decoupled, against momentum by hand.


def run(optimizer, steps, jitted=True):
    update = jax.jit(optimizer.update) if jitted else optimizer.update
    params, state = PARAMS, optimizer.init(PARAMS)
    for t in range(steps):
        updates, state = update(tree(100 + t), state, params)
        params = optax.apply_updates(params, updates)
    return params


def momentum_by_hand(steps, *, coupled, strength=lambda t: STRENGTH, every=1):
    """SGD with momentum of one kernel; `every` gradients are averaged for a step."""
    kernel = oracle.float64(PARAMS["conv"]["kernel"])
    velocity = np.zeros_like(kernel)
    for t in range(steps):
        batches = [tree(100 + every * t + i) for i in range(every)]
        gradient = np.mean(
            [oracle.float64(batch["conv"]["kernel"]) for batch in batches], axis=0
        )
        similarity = strength(t) * similarity_gradient(kernel)
        velocity = MOMENTUM * velocity + gradient + (similarity if coupled else 0)
        step = velocity + (0 if coupled else similarity)
        kernel = kernel - LEARNING_RATE * step
    return kernel


def coupled(strength=STRENGTH):
    return optax.chain(
        cs.add_convolutional_similarity(strength),
        optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
    )


def decoupled(strength=STRENGTH):
    return optax.chain(
        optax.trace(MOMENTUM),
        cs.add_convolutional_similarity(strength),
        optax.scale_by_learning_rate(LEARNING_RATE),
    )


PLACEMENTS = pytest.mark.parametrize("placement", [coupled, decoupled])


@PLACEMENTS
def test_placement_against_momentum_by_hand(placement):
    params = run(placement(), steps=4)
    expected = momentum_by_hand(4, coupled=placement is coupled)
    other = momentum_by_hand(4, coupled=placement is not coupled)
    result = params["conv"]["kernel"]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert oracle.relative_error(result, other) > 0.01  # the two can be told apart
    # Nothing else knows of the similarity.
    plain = run(optax.sgd(LEARNING_RATE, momentum=MOMENTUM), steps=4)
    for layer, leaf in [("conv", "bias"), ("dense", "kernel")]:
        np.testing.assert_allclose(params[layer][leaf], plain[layer][leaf], rtol=1e-6)


def test_schedules_of_optax():
    schedule = optax.linear_schedule(1.0, 0.0, transition_steps=4)
    transformation = cs.add_convolutional_similarity(schedule)
    state = transformation.init(jax.eval_shape(lambda: PARAMS))  # shapes are enough
    assert state.count.dtype == jnp.int32
    for t in range(6):
        assert state.count == t
        updates, state = transformation.update(UPDATES, state, PARAMS)
        assert_added(updates, added(strength=max(0.0, 1 - t / 4)))


# Inside the wrappers of optax.


@pytest.mark.usefixtures("relaxed_jax")
@PLACEMENTS
def test_multi_steps_counts_updates_not_batches(placement):
    values = [0.5, 2.0]
    optimizer = placement(lambda count: jnp.array(values)[count])
    result = run(optax.MultiSteps(optimizer, every_k_schedule=3), steps=6)
    expected = momentum_by_hand(
        2, coupled=placement is coupled, strength=values.__getitem__, every=3
    )
    np.testing.assert_allclose(result["conv"]["kernel"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "outer",
    [
        {"conv": {"kernel": True, "bias": True}, "dense": {"kernel": False}},
        {"conv": True, "dense": False},
        lambda params: jax.tree.map(lambda x: x.ndim == 4, params),
    ],
    ids=["leaf by leaf", "prefix", "callable"],
)
def test_masked(outer):
    """Also around a mask of all parameters, with leaves that the outer one hides."""
    inner = {"conv": {"kernel": True, "bias": False}, "dense": {"kernel": False}}
    for mask in (None, inner):
        transformation = cs.add_convolutional_similarity(STRENGTH, mask=mask)
        assert_added(one_update(optax.masked(transformation, outer)), added())


def test_inject_hyperparams_with_a_schedule_and_options():
    transformation = optax.inject_hyperparams(
        cs.add_convolutional_similarity, static_args=("mask", "feature_group_count")
    )(
        strength=lambda count: jnp.array([0.5, 2.0])[count],
        mask=lambda params: jax.tree.map(lambda x: x.ndim == 4, params),
        channels="cross",
        normalize=True,
        feature_group_count=3,
    )
    state = transformation.init(PARAMS)
    update = jax.jit(transformation.update)
    for strength in (0.5, 2.0):
        result, state = update(UPDATES, state, PARAMS)
        options = {"channels": "cross", "normalize": True, "feature_group_count": 3}
        assert_added(result, added(strength=strength, **options))


@pytest.mark.usefixtures("relaxed_jax")
def test_extra_arguments_of_a_chain_pass_by():
    optimizer = optax.chain(
        cs.add_convolutional_similarity(STRENGTH), optax.contrib.reduce_on_plateau()
    )
    updates, _ = optimizer.update(
        UPDATES, optimizer.init(PARAMS), PARAMS, value=jnp.float32(1.0)
    )
    assert_added(updates, added())


@pytest.mark.slow
def test_vmap_over_seeds():
    transformation = cs.add_convolutional_similarity(STRENGTH)
    params, updates = [tree(40), tree(50)], [tree(60), tree(70)]
    stacked = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in (updates, params)
    ]
    state = jax.vmap(transformation.init)(stacked[1])
    result, _ = jax.vmap(transformation.update)(stacked[0], state, stacked[1])
    for i in range(2):
        own = jax.tree.map(lambda x, i=i: x[i], result)
        assert_added(own, added(updates[i], params[i]), updates[i])


@pytest.mark.parametrize("how", ["groups", "layers"])
@pytest.mark.parametrize("hidden", [None, "other", "conv"])
def test_what_names_layers_by_path_passes_over_those_that_are_hidden(how, hidden):
    """As `optax.masked` and `optax.multi_transform` hide what is not theirs."""

    def apply(params, x):
        x = convolve(x, params["conv"]["kernel"], feature_group_count=3)
        return convolve(x, params["other"]["kernel"])

    params = PARAMS | {"other": {"kernel": jnp.ones((1, 1, 3, 2))}}
    updates = UPDATES | {"other": {"kernel": jnp.zeros((1, 1, 3, 2))}}
    options = {"feature_group_count": {"conv/kernel": 3}}
    if how == "layers":
        options = {"layers": cs.conv_layers(apply, params, jnp.ones((1, 4, 4, 6)))}
    transformation = optax.multi_transform(
        {
            "seen": cs.add_convolutional_similarity(STRENGTH, **options),
            "hidden": optax.scale(-2.0),
        },
        {name: "hidden" if name == hidden else "seen" for name in params},
    )
    result = one_update(transformation, updates, params)
    if hidden == "conv":
        expected = jax.tree.map(lambda update: -2 * update, UPDATES["conv"])
        jax.tree.map(np.testing.assert_array_equal, result["conv"], expected)
        assert np.all(result["other"]["kernel"] != 0)
    else:
        assert_added(result, added(feature_group_count=3))


def test_inject_hyperparams_takes_numbers_for_hyperparameters():
    make = optax.inject_hyperparams(cs.add_convolutional_similarity)
    transformation = make(strength=STRENGTH, feature_group_count=3)
    with pytest.raises(ValueError, match=r"feature_group_count is.*static_args"):
        transformation.init(PARAMS)


# Structure and dtypes, at each place and inside of each wrapper.

PLACES = {
    "bare": cs.add_convolutional_similarity,
    "decoupled": decoupled,
    "before adam": lambda strength: optax.chain(
        cs.add_convolutional_similarity(strength), optax.adam(0.1)
    ),
}
ONLY_CONV = {"conv": True, "bf16": True, "dense": False, "frozen": False}
WRAPPERS = {
    "schedule": lambda make: make(optax.linear_schedule(0.5, 0.1, 10)),
    "masked": lambda make: optax.masked(make(0.5), ONLY_CONV),
    "multi_transform": lambda make: optax.multi_transform(
        {True: make(0.5), False: optax.identity()}, ONLY_CONV
    ),
    "multi_steps": lambda make: optax.MultiSteps(make(0.5), every_k_schedule=2),
    "inject_hyperparams": lambda make: optax.inject_hyperparams(
        lambda strength: make(strength)
    )(strength=0.5),
}
MIXED, MIXED_UPDATES = (
    {**tree, "bf16": {"kernel": normal(seed, (1, 2, 1, 2), jnp.bfloat16)}, "frozen": None}
    for seed, tree in [(80, PARAMS), (81, UPDATES)]
)


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed_jax")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_keeps_structure_and_dtypes_and_moves_kernels_alone(place, wrapper):
    """The last against the same optimizer with strength 0."""

    def two_steps(make):
        optimizer = wrapper(make)
        first = state = optimizer.init(MIXED)
        for _ in range(2):
            result, state = jax.jit(optimizer.update)(MIXED_UPDATES, state, MIXED)
            assert types(result) == types(MIXED)
            assert types(state) == types(first)
        return result

    with_it, without = two_steps(place), two_steps(lambda strength: place(0.0))
    assert np.any(with_it["conv"]["kernel"] != without["conv"]["kernel"])
    np.testing.assert_allclose(with_it["conv"]["bias"], without["conv"]["bias"])
    np.testing.assert_allclose(with_it["dense"]["kernel"], without["dense"]["kernel"])


@pytest.mark.usefixtures("relaxed_jax")
@pytest.mark.parametrize("wrapper", ["schedule", "masked"])
def test_without_params_it_says_so(wrapper):
    optimizer = WRAPPERS[wrapper](cs.add_convolutional_similarity)
    with pytest.raises(ValueError, match=r"params is None.*update\(updates, state, "):
        optimizer.update(MIXED, optimizer.init(MIXED))
