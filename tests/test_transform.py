import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convsim_jax as cs
from tests import oracle

STRENGTH, LEARNING_RATE, MOMENTUM = 0.5, 0.1, 0.9
SHAPE = (2, 2, 1, 3)


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / 2, dtype)


def tree(seed, dtype=jnp.float32):
    """Parameters, or updates of them: a conv layer and a dense one."""
    return {
        "conv": {
            "kernel": normal(seed, SHAPE, dtype),
            "bias": normal(seed + 1, (3,), dtype),
        },
        "dense": {"kernel": normal(seed + 2, (3, 2), dtype)},
    }


PARAMS, UPDATES = tree(0), tree(10)


def similarity_gradient(kernel, **options):
    return oracle.gradient(
        lambda k: oracle.convolutional_similarity(k, **options), kernel
    )


def added(updates=UPDATES, params=PARAMS, strength=STRENGTH, **options):
    """What the kernel's update should become, in float64."""
    kernel, update = (oracle.float64(t["conv"]["kernel"]) for t in (params, updates))
    return update + strength * similarity_gradient(kernel, **options)


def assert_added(result, expected, updates=UPDATES):
    """The kernel's update is `expected`, every other is what it was."""
    np.testing.assert_allclose(result["conv"]["kernel"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result["conv"]["bias"], updates["conv"]["bias"])
    np.testing.assert_array_equal(result["dense"]["kernel"], updates["dense"]["kernel"])


def one_update(transformation, updates=UPDATES, params=PARAMS):
    state = transformation.init(params)
    return jax.jit(transformation.update)(updates, state, params)[0]


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


def test_sums_over_layers():
    params = {"a": PARAMS, "b": tree(20)}
    updates = {"a": UPDATES, "b": tree(30)}
    result = one_update(cs.add_convolutional_similarity(STRENGTH), updates, params)
    for name in "ab":
        expected = added(updates[name], params[name])
        assert_added(result[name], expected, updates[name])


def test_eager_is_jitted():
    transformation = cs.add_convolutional_similarity(STRENGTH)
    eager, state = transformation.update(UPDATES, transformation.init(PARAMS), PARAMS)
    assert_added(eager, added())
    assert state.count == 1


@pytest.mark.parametrize(
    "strength",
    [0, 2, 0.25, np.float32(0.25), jnp.float32(0.25), np.array(0.25), jnp.array(2)],
    ids=lambda s: f"{type(s).__name__}-{s}",
)
def test_strength_is_any_scalar(strength):
    result = one_update(cs.add_convolutional_similarity(strength))
    assert_added(result, added(strength=float(strength)))


def test_strength_may_be_traced():
    def update(strength):
        return one_update(cs.add_convolutional_similarity(strength))

    result = jax.jit(update)(jnp.float32(0.25))
    assert_added(result, added(strength=0.25))


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


@PLACEMENTS
def test_schedule_is_read_at_the_number_of_updates_before(placement):
    values = [0.5, 0.0, 2.0, 0.25]

    def schedule(count):
        return jnp.array(values)[count]

    result = run(placement(schedule), steps=4)["conv"]["kernel"]
    expected = momentum_by_hand(
        4, coupled=placement is coupled, strength=values.__getitem__
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_schedules_of_optax():
    schedule = optax.linear_schedule(1.0, 0.0, transition_steps=4)
    transformation = cs.add_convolutional_similarity(schedule)
    state = transformation.init(PARAMS)
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
    "mask",
    [
        {"conv": True, "dense": False},
        {"conv": {"kernel": True, "bias": False}, "dense": True},
        lambda params: jax.tree.map(lambda x: x.ndim == 4, params),
    ],
)
def test_masked(mask):
    transformation = optax.masked(cs.add_convolutional_similarity(STRENGTH), mask)
    assert_added(one_update(transformation), added())


@pytest.mark.parametrize(
    "outer",
    [
        {"conv": {"kernel": True, "bias": True}, "dense": {"kernel": False}},
        {"conv": True, "dense": False},
    ],
    ids=["leaf by leaf", "prefix"],
)
def test_mask_of_all_params_inside_one_of_optax(outer):
    """The inner mask has leaves that the outer one hides."""
    inner = {"conv": {"kernel": True, "bias": False}, "dense": {"kernel": False}}
    transformation = optax.masked(
        cs.add_convolutional_similarity(STRENGTH, mask=inner), outer
    )
    assert_added(one_update(transformation), added())


def test_multi_transform():
    labels = {"conv": {"kernel": "conv", "bias": "rest"}, "dense": "rest"}
    transformation = optax.multi_transform(
        {
            "conv": cs.add_convolutional_similarity(STRENGTH),
            "rest": optax.scale(-2.0),
        },
        labels,
    )
    result = one_update(transformation)
    np.testing.assert_allclose(result["conv"]["kernel"], added(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result["conv"]["bias"], -2 * UPDATES["conv"]["bias"])


def test_inject_hyperparams():
    transformation = optax.inject_hyperparams(cs.add_convolutional_similarity)(
        strength=STRENGTH
    )
    state = transformation.init(PARAMS)
    update = jax.jit(transformation.update)
    result, state = update(UPDATES, state, PARAMS)
    assert_added(result, added())
    state.hyperparams["strength"] = jnp.float32(0.125)
    result, state = update(UPDATES, state, PARAMS)
    assert_added(result, added(strength=0.125))


def test_inject_hyperparams_with_a_schedule_and_options():
    transformation = optax.inject_hyperparams(
        cs.add_convolutional_similarity, static_args=("mask", "feature_group_count")
    )(
        strength=lambda count: jnp.array([0.5, 2.0])[count],
        mask=lambda params: jax.tree.map(lambda x: x.ndim == 4, params),
        channels="cross",
        normalize=True,
        feature_group_count=1,
    )
    state = transformation.init(PARAMS)
    for strength in (0.5, 2.0):
        result, state = jax.jit(transformation.update)(UPDATES, state, PARAMS)
        expected = added(strength=strength, channels="cross", normalize=True)
        assert_added(result, expected)


@pytest.mark.usefixtures("relaxed_jax")
def test_extra_arguments_of_a_chain_pass_by():
    optimizer = optax.chain(
        cs.add_convolutional_similarity(STRENGTH), optax.contrib.reduce_on_plateau()
    )
    updates, _ = optimizer.update(
        UPDATES, optimizer.init(PARAMS), PARAMS, value=jnp.float32(1.0)
    )
    assert_added(updates, added())


def test_vmap_over_seeds():
    transformation = cs.add_convolutional_similarity(STRENGTH)
    params = [tree(seed) for seed in (40, 50)]
    updates = [tree(seed) for seed in (60, 70)]
    stacked_params, stacked_updates = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in (params, updates)
    )
    state = jax.vmap(transformation.init)(stacked_params)
    result, _ = jax.vmap(transformation.update)(stacked_updates, state, stacked_params)
    for i in range(2):
        own = jax.tree.map(lambda x, i=i: x[i], result)
        assert_added(own, added(updates[i], params[i]), updates[i])


# Trees of other libraries.


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(1, 3, (2, 2), rngs=rngs)
        self.second = nnx.Conv(1, 3, (2, 2), rngs=rngs)


def only_second(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, x: "second" in str(path) and x.ndim == 4, params
    )


@pytest.mark.parametrize("mask", ["none", "callable", "tree"])
@pytest.mark.parametrize("jitted", [False, True])
def test_nnx_optimizer(mask, jitted):
    model = NnxNet(nnx.Rngs(0))
    masks = {
        "none": None,
        "callable": only_second,
        "tree": only_second(nnx.state(model, nnx.Param)),
    }
    before = {name: oracle.float64(getattr(model, name).kernel[...]) for name in NAMES}
    optimizer = nnx.Optimizer(
        model,
        optax.chain(
            cs.add_convolutional_similarity(STRENGTH, mask=masks[mask]),
            optax.sgd(LEARNING_RATE),
        ),
        wrt=nnx.Param,
    )

    def step(model, optimizer):
        def loss(model):
            return sum(0.5 * jnp.sum(getattr(model, n).kernel[...] ** 2) for n in NAMES)

        optimizer.update(model, nnx.grad(loss)(model))

    (nnx.jit(step) if jitted else step)(model, optimizer)
    for name, kernel in before.items():
        gradient = kernel  # of the loss
        if mask == "none" or name == "second":
            gradient = gradient + STRENGTH * similarity_gradient(kernel)
        np.testing.assert_allclose(
            getattr(model, name).kernel[...],
            kernel - LEARNING_RATE * gradient,
            rtol=1e-5,
            atol=1e-6,
        )


NAMES = ("first", "second")


def test_equinox_module_with_none_leaves():
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 3, (2, 3), key=jax.random.key(0)),
            eqx.nn.Lambda(jax.nn.relu),
        ]
    )
    params = eqx.filter(model, eqx.is_inexact_array)
    transformation = cs.add_convolutional_similarity(STRENGTH, layout="OIHW")
    updates = jax.tree.map(jnp.ones_like, params)
    result = one_update(transformation, updates, params)
    assert jax.tree.structure(result) == jax.tree.structure(updates)
    kernel = jnp.transpose(params.layers[0].weight, (2, 3, 1, 0))
    expected = 1 + STRENGTH * similarity_gradient(kernel)
    np.testing.assert_allclose(
        result.layers[0].weight,
        np.transpose(expected, (3, 2, 0, 1)),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(result.layers[0].bias, 1)


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


@pytest.mark.parametrize("of_params", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("of_updates", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_updates_keep_their_dtype_and_round_once(of_params, of_updates):
    params, updates = tree(0, of_params), tree(10, of_updates)
    transformation = cs.add_convolutional_similarity(jnp.float32(STRENGTH))
    result = one_update(transformation, updates, params)
    assert all(leaf.dtype == of_updates for leaf in jax.tree.leaves(result))
    exact = added(updates, params)
    error = np.abs(oracle.float64(result["conv"]["kernel"]) - exact)
    half_unit = float(jnp.finfo(of_updates).eps) / 2
    assert np.all(error <= half_unit * np.abs(exact) * 1.001 + 1e-6)


@pytest.mark.usefixtures("x64")
def test_double_precision():
    params, updates = tree(0, jnp.float64), tree(10, jnp.float64)
    result = one_update(cs.add_convolutional_similarity(STRENGTH), updates, params)
    assert result["conv"]["kernel"].dtype == jnp.float64
    np.testing.assert_allclose(
        result["conv"]["kernel"], added(updates, params), rtol=1e-9
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_zero_kernels_get_no_update(normalize):
    params = jax.tree.map(jnp.zeros_like, PARAMS)
    transformation = cs.add_convolutional_similarity(STRENGTH, normalize=normalize)
    result = one_update(transformation, UPDATES, params)
    assert_added(result, oracle.float64(UPDATES["conv"]["kernel"]))


# Errors.


@PLACEMENTS
def test_without_params_it_says_so(placement):
    optimizer = placement()
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match=r"params is None.*update\(updates, state, pa"):
        optimizer.update(UPDATES, state)


def test_without_params_alone_too():
    """`optax.add_decayed_weights` fails here on the missing argument itself."""
    transformation = cs.add_convolutional_similarity(STRENGTH)
    state = transformation.init(PARAMS)
    with pytest.raises(ValueError, match=r"params is None"):
        transformation.update(UPDATES, state)


@pytest.mark.parametrize(
    "strength",
    [-0.1, -1, float("nan"), float("inf"), np.float32(-2), jnp.array(-0.5)],
    ids=str,
)
def test_strength_is_not_negative(strength):
    with pytest.raises(ValueError, match=r"strength is .*expected a finite.*0 or"):
        cs.add_convolutional_similarity(strength)


@pytest.mark.parametrize("strength", [jnp.ones(3), "0.1", None, [0.1]], ids=str)
def test_strength_is_one_number(strength):
    with pytest.raises(ValueError, match=r"strength is .*expected a finite.*schedule"):
        cs.add_convolutional_similarity(strength)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "some"}, r"pairs is 'some'.*'all' or 'adjacent'"),
        ({"channels": "mixed"}, r"channels is 'mixed'.*'matched' or 'cross'"),
        ({"normalize": None}, r"normalize is None.*True or False"),
    ],
)
def test_rejects_unknown_options_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        cs.add_convolutional_similarity(STRENGTH, **options)


@pytest.mark.parametrize(
    ("options", "params", "message"),
    [
        ({}, {"dense": {"kernel": jnp.ones((3, 2))}}, r"params has no conv kernel"),
        ({"mask": {"conv": True}}, PARAMS, r"mask has no leaf for 'dense/kernel'"),
        ({"feature_group_count": 2}, PARAMS, r"feature_group_count is 2.*3 output"),
        ({"layout": "OHWI"}, PARAMS, r"layout is 'OHWI'"),
    ],
)
def test_rejects_unfit_params_at_init(options, params, message):
    transformation = cs.add_convolutional_similarity(STRENGTH, **options)
    with pytest.raises(ValueError, match=message):
        transformation.init(params)
