"""What every penalty of a kernel, and every use of the transformation, has to do."""

import inspect
import itertools
import subprocess
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convsim_jax as cs
from convsim_jax import orthogonality
from tests.library import oracle


def normal(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / 2, dtype)


def objective(*options):
    names = ("pairs", "channels", "normalize", "feature_group_count")
    names += ("strides", "transposed")
    return partial(cs.convolutional_similarity, **dict(zip(names, options, strict=False)))


OBJECTIVES = [
    ("-".join(map(str, options)), objective(*options))
    for options in [
        *itertools.product(("all", "adjacent"), ("matched", "cross"), (False, True), [1]),
        ("all", "matched", False, 2),
        ("adjacent", "cross", True, 2),
        ("adjacent", "matched", True, 2, 2),
        ("all", "matched", True, 1, 2, True),
    ]
]
ORTHOGONALITY = [
    (name, function)
    for name, function in inspect.getmembers(orthogonality, inspect.isfunction)
    if function.__module__ == orthogonality.__name__ and not name.startswith("_")
]
PENALTIES = [*OBJECTIVES, *ORTHOGONALITY]
every_penalty = pytest.mark.parametrize(
    "penalty",
    [function for _, function in PENALTIES],
    ids=[name for name, _ in PENALTIES],
)
SHAPE = (2, 2, 4)
DTYPES = [jnp.float16, jnp.bfloat16, jnp.float64]


def test_every_penalty_of_the_literature_is_here():
    assert len(ORTHOGONALITY) >= 5  # SO, DSO, MC, SRIP, OCNN


def test_the_library_needs_neither_models_nor_experiments():
    program = "import sys, convsim_jax, convsim_jax.orthogonality; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "convsim_jax" in loaded
    assert not {"flax", "equinox", "experiments", "matplotlib"} & set(loaded)


@cache
def value_and_slope(penalty):
    return jax.jit(jax.value_and_grad(penalty))


@every_penalty
def test_jitted_is_eager(penalty):
    kernel = normal(0, SHAPE)
    value, slope = value_and_slope(penalty)(kernel)
    assert value.dtype == slope.dtype == jnp.float32
    np.testing.assert_allclose(penalty(kernel), value, rtol=1e-5)


@every_penalty
def test_vmapped_is_a_loop(penalty):
    kernels = normal(1, (3, *SHAPE))
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(penalty)))(kernels)
    for kernel, value, slope in zip(kernels, values, slopes, strict=True):
        expected = value_and_slope(penalty)(kernel)
        np.testing.assert_allclose(value, expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(slope, expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@every_penalty
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_kept_and_half_precision_rounds_once(penalty, dtype):
    kernel = normal(2, SHAPE, dtype)
    value, slope = value_and_slope(penalty)(kernel)
    assert value.shape == ()
    assert value.dtype == slope.dtype == dtype
    exact, exact_slope = value_and_slope(penalty)(kernel.astype(jnp.float64))
    tolerance = max(float(jnp.finfo(dtype).eps), 1e-5)
    assert oracle.relative_error(value, exact) <= tolerance
    assert oracle.relative_error(slope, exact_slope) <= tolerance


@every_penalty
def test_three_spatial_axes_have_a_finite_value_and_gradient(penalty):
    value, slope = value_and_slope(penalty)(normal(3, (1, 2, 1, 2, 4)))
    assert value >= 0
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


@every_penalty
def test_zero_kernels_have_a_finite_value_and_no_gradient(penalty):
    value, slope = value_and_slope(penalty)(jnp.zeros(SHAPE))
    assert np.isfinite(value)
    np.testing.assert_array_equal(slope, 0)


@every_penalty
def test_one_zero_kernel_among_others_has_a_finite_gradient(penalty):
    kernel = normal(4, SHAPE).at[..., 1].set(0)
    value, slope = value_and_slope(penalty)(kernel)
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@every_penalty
def test_first_and_second_derivative_in_both_modes(penalty):
    kernel, direction = (normal(seed, SHAPE, jnp.float64) for seed in (5, 6))
    h = 1e-5
    (above, slope_above), (below, slope_below) = (
        value_and_slope(penalty)(kernel + s * direction) for s in (h, -h)
    )

    def forward(kernel):
        return jax.jvp(penalty, (kernel,), (direction,))[1]

    def reverse(kernel):
        return jnp.vdot(jax.grad(penalty)(kernel), direction)

    @jax.jit
    def slopes_and_curvatures(kernel):
        return [jax.value_and_grad(along)(kernel) for along in (forward, reverse)]

    for slope, curvature in slopes_and_curvatures(kernel):
        np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-6)
        expected = (slope_above - slope_below) / (2 * h)
        assert oracle.relative_error(curvature, expected) < 1e-6


@every_penalty
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (jnp.ones((3, 4)), r"kernel.*\(3, 4\).*rank 2.*3, 4 or 5"),
        (jnp.ones((1,) * 6), r"kernel.*rank 6.*3, 4 or 5"),
        (jnp.ones(SHAPE, int), r"kernel.*int32.*floating"),
    ],
    ids=["rank-2", "rank-6", "integer"],
)
def test_rejects_what_is_no_kernel(penalty, kernel, message):
    with pytest.raises(ValueError, match=message):
        penalty(kernel)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_wide_window_compiles(normalize):
    """As the first layer of a ResNet has; against a kernel of two taps far apart."""
    kernel = jnp.zeros((7, 7, 1, 2)).at[0, 0, 0].set(1.0).at[6, 6, 0, 1].set(2.0)
    value, slope = jax.value_and_grad(
        partial(cs.convolutional_similarity, normalize=normalize)
    )(kernel)
    # One tap against [1, 2]: 1 + 4; the own similarities are 1 and 2^2 + 5^2 + 2^2.
    expected = 5 / np.sqrt(33) if normalize else 5
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(slope))


# The transformation: bare, and at both places of an optimizer.

add = cs.add_convolutional_similarity
PLACES = {
    "bare": lambda strength: add(strength),
    "decoupled-sgd": lambda strength: optax.chain(
        optax.trace(0.9), add(strength), optax.scale_by_learning_rate(0.1)
    ),
    "coupled-adam": lambda strength: optax.chain(add(strength), optax.adam(0.1)),
}
ONLY_CONV = {"conv": True, "bf16": True, "dense": False, "frozen": False}
WRAPPERS = {
    "plain": lambda make: make(0.5),
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
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
every_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)


def tree(seed):
    return {
        "conv": {"kernel": normal(seed, (2, 1, 2, 3)), "bias": normal(seed + 1, (3,))},
        "bf16": {"kernel": normal(seed + 2, (1, 2, 1, 2), jnp.bfloat16)},
        "dense": {"kernel": normal(seed + 3, (3, 2))},
        "frozen": None,
    }


def dtypes(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed_jax")
@every_place
@every_wrapper
def test_keeps_structure_and_dtypes_and_moves_kernels_alone(place, wrapper):
    """The last against the same optimizer with strength 0."""
    params, updates = tree(0), tree(10)

    def two_steps(make):
        optimizer = wrapper(make)
        first = state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for _ in range(2):
            result, state = update(updates, state, params)
            assert jax.tree.structure(result) == jax.tree.structure(updates)
            assert dtypes(result) == dtypes(updates)
            assert jax.tree.structure(state) == jax.tree.structure(first)
            assert dtypes(state) == dtypes(first)
        return result

    with_it, without = two_steps(place), two_steps(lambda strength: place(0.0))
    for name in ("conv", "bf16"):
        assert np.any(with_it[name]["kernel"] != without[name]["kernel"])
    np.testing.assert_allclose(with_it["conv"]["bias"], without["conv"]["bias"])
    np.testing.assert_allclose(with_it["dense"]["kernel"], without["dense"]["kernel"])


@pytest.mark.usefixtures("relaxed_jax")
@every_place
@pytest.mark.parametrize("wrapper", ["plain", "inject_hyperparams"])
def test_jitted_update_is_eager(place, wrapper):
    optimizer = WRAPPERS[wrapper](place)
    params, updates = tree(0), tree(10)
    state = optimizer.init(params)
    eager, _ = optimizer.update(updates, state, params)
    jitted, _ = jax.jit(optimizer.update)(updates, state, params)
    for one, other in zip(jax.tree.leaves(jitted), jax.tree.leaves(eager), strict=True):
        tolerance = 1e-2 if one.dtype == jnp.bfloat16 else 1e-5
        np.testing.assert_allclose(
            oracle.float64(one), oracle.float64(other), rtol=tolerance, atol=tolerance
        )


@pytest.mark.usefixtures("relaxed_jax")
@every_place
@pytest.mark.parametrize("wrapper", ["plain", "schedule", "masked"])
def test_without_params_it_says_so(place, wrapper):
    optimizer = WRAPPERS[wrapper](place)
    state = optimizer.init(tree(0))
    with pytest.raises(ValueError, match=r"params is None.*update\(updates, state, "):
        optimizer.update(tree(10), state)


@pytest.mark.usefixtures("relaxed_jax")
@every_place
def test_nnx_optimizer(place):
    model = nnx.Conv(1, 3, (2, 2), rngs=nnx.Rngs(0))
    plain = nnx.clone(model)
    for net, strength in [(model, 0.5), (plain, 0.0)]:
        # The bare transformation goes uphill: no matter here.
        optimizer = nnx.Optimizer(net, place(strength), wrt=nnx.Param)

        @nnx.jit
        def step(net, optimizer):
            optimizer.update(net, nnx.grad(lambda m: jnp.sum(m.kernel[...]))(net))

        step(net, optimizer)
        step(net, optimizer)
    assert np.all(np.isfinite(model.kernel[...]))
    assert np.any(model.kernel[...] != plain.kernel[...])
    np.testing.assert_array_equal(model.bias[...], plain.bias[...])
