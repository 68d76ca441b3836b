"""Steps down the similarity: against plain SGD by hand, and what they keep."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import normal, single

# Adam and the schedules of optax raise a Python float to an int32 power.
promoting_optax = pytest.mark.usefixtures("relaxed_jax")

LEARNING_RATE = 0.02
SGD = optax.sgd(LEARNING_RATE)
SHAPE = (2, 2, 1, 3)


def tree(seed=0, dtype=jnp.float32):
    """Two conv layers, and leaves that no step may touch."""
    return {
        "a": {"kernel": normal(seed, SHAPE, dtype), "bias": jnp.ones(3)},
        "b": {"kernel": normal(seed + 1, (1, 2, 2, 2), dtype)},
        "dense": {"kernel": normal(seed + 2, (3, 2))},
        "step": jnp.array(5),
        "nothing": None,
    }


def channel_norms(kernel):
    return np.sqrt(np.sum(oracle.float64(kernel) ** 2, axis=(0, 1, 2)))


def descend(kernel, steps, *, preserve_norm=False, **options):
    """Every kernel on the way of `steps` steps of plain SGD, by hand in float64."""
    kernels = [oracle.float64(kernel)]
    initial = channel_norms(kernel)
    for _ in range(steps):
        slope = oracle.gradient(
            lambda k: oracle.convolutional_similarity(k, **options), kernels[-1]
        )
        moved = kernels[-1] - LEARNING_RATE * slope
        if preserve_norm:
            moved = moved * initial / channel_norms(moved)
        kernels.append(moved)
    return kernels


OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": "adjacent", "channels": "cross"},
        {"channels": "cross", "normalize": True},
    ],
    ids=str,
)


@pytest.mark.slow
@OPTIONS
@pytest.mark.parametrize("preserve_norm", [False, True])
def test_steps_and_history_by_hand(options, preserve_norm):
    params, steps = tree(), 4
    result, history = cs.minimize_similarity(
        params, steps, optimizer=SGD, preserve_norm=preserve_norm, **options
    )
    options = options | {"preserve_norm": preserve_norm}
    paths = {
        path: descend(kernel, steps, **options)
        for path, kernel in cs.conv_kernels(params).items()
    }
    for path, kernel in cs.conv_kernels(result).items():
        np.testing.assert_allclose(kernel, paths[path][-1], rtol=1e-4, atol=1e-5)
        expected = [np.linalg.norm(kernel) for kernel in paths[path]]
        np.testing.assert_allclose(history.norms[path], expected, rtol=1e-4)
    del options["preserve_norm"]
    for loss, normalize in [
        (history.loss, options.get("normalize", False)),
        (history.scale_free_loss, True),
    ]:
        options = options | {"normalize": normalize}
        every_step = zip(*paths.values(), strict=True)
        expected = [oracle.total_similarity(kernels, **options) for kernels in every_step]
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


@promoting_optax
def test_default_is_adam_on_the_papers_loss():
    kernel = oracle.float64(single(3, SHAPE))
    result, _ = cs.minimize_similarity({"kernel": single(3, SHAPE)}, 3)
    first, second = np.zeros_like(kernel), np.zeros_like(kernel)
    for t in range(1, 4):
        slope = oracle.gradient(oracle.convolutional_similarity, kernel)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        unbiased = first / (1 - 0.9**t), second / (1 - 0.999**t)
        kernel = kernel - 2e-3 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(result["kernel"], kernel, rtol=1e-5, atol=1e-6)


@promoting_optax
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_other_leaves_and_dtypes_are_kept(dtype):
    params = tree(0, dtype)
    result, _ = cs.minimize_similarity(params, 2, preserve_norm=True)
    assert jax.tree.structure(result) == jax.tree.structure(params)
    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (params, result)]
    assert dtypes[0] == dtypes[1]
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), result, params)
    assert changed == {
        "a": {"kernel": True, "bias": False},
        "b": {"kernel": True},
        "dense": {"kernel": False},
        "step": False,
        "nothing": None,
    }


def test_no_steps():
    params = tree()
    result, history = cs.minimize_similarity(params, 0, optimizer=SGD, preserve_norm=True)
    jax.tree.map(np.testing.assert_array_equal, result, params)
    assert history.loss.shape == history.scale_free_loss.shape == (1,)
    expected = oracle.total_similarity(cs.conv_kernels(params).values())
    np.testing.assert_allclose(history.loss[0], expected, rtol=1e-5)


def test_equinox_module_with_mask_groups_and_layout():
    conv, other = (
        eqx.nn.Conv2d(4, 4, (2, 1), groups=2, key=jax.random.key(seed)) for seed in (0, 1)
    )
    model = eqx.nn.Sequential([conv, eqx.nn.Lambda(jax.nn.relu), other])
    mask = jax.tree.map(lambda leaf: leaf is conv.weight, model)
    options = {"mask": mask, "layout": "OIHW", "optimizer": SGD}
    result, history = cs.minimize_similarity(
        model, 3, feature_group_count={"layers/0/weight": 2}, **options
    )
    kernels = descend(np.transpose(conv.weight, (2, 3, 1, 0)), 3, feature_group_count=2)
    expected = np.transpose(kernels[-1], (3, 2, 0, 1))
    np.testing.assert_allclose(result[0].weight, expected, rtol=1e-4, atol=1e-5)
    expected = [
        oracle.convolutional_similarity(k, feature_group_count=2) for k in kernels
    ]
    np.testing.assert_allclose(history.loss, expected, rtol=1e-4)
    assert eqx.tree_equal(
        result, eqx.tree_at(lambda m: m[0].weight, model, result[0].weight)
    )


def test_one_compiled_scan():
    """The optimizer is traced once, however many steps there are."""
    calls = []

    def update(updates, state, params=None):
        calls.append(params)
        return SGD.update(updates, state, params)

    optimizer = optax.GradientTransformation(SGD.init, update)
    _, history = cs.minimize_similarity(tree(), 50, optimizer=optimizer)
    assert len(calls) == 1
    assert history.loss.shape == (51,)
    # Optimizers with weight decay and the like need the parameters.
    assert calls[0] is not None


@pytest.mark.slow
@promoting_optax
@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(10)),
        optax.chain(optax.adam(2e-3), optax.contrib.reduce_on_plateau(patience=2)),
        optax.contrib.muon(1e-2),
    ],
    ids=["lbfgs", "linesearch", "plateau", "muon"],
)
def test_any_optimizer(optimizer):
    """Those that ask for the value, its gradient and the function among them."""
    params = {"kernel": single(12, (2, 2, 2, 4))}
    _, history = cs.minimize_similarity(
        params, 5, optimizer=optimizer, channels="cross", normalize=True
    )
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize("preserve_norm", [False, True])
def test_a_scanned_stack_is_as_many_kernels(preserve_norm):
    def apply(params, x):
        return jax.lax.scan(
            lambda x, k: (jax.lax.conv(x, k, (1, 1), "SAME"), None), x, params["w"]
        )[0]

    stack = single(14, (2, 3, 3, 2, 2))  # (layers, M, C, *window)
    layers = cs.conv_layers(apply, {"w": stack}, jnp.ones((1, 3, 4, 4)))
    result, history = cs.minimize_similarity(
        {"w": stack}, 3, optimizer=SGD, layers=layers, preserve_norm=preserve_norm
    )
    paths = [
        descend(kernel.transpose(2, 3, 1, 0), 3, preserve_norm=preserve_norm)
        for kernel in stack
    ]
    for kernel, path in zip(result["w"], paths, strict=True):
        expected = np.transpose(path[-1], (3, 2, 0, 1))
        np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)
    expected = [oracle.total_similarity(kernels) for kernels in zip(*paths, strict=True)]
    np.testing.assert_allclose(history.loss, expected, rtol=1e-4)


# Under transformations.


@pytest.mark.slow
@pytest.mark.parametrize("preserve_norm", [False, True])
def test_vmap_over_seeds(preserve_norm):
    options = {"optimizer": SGD, "preserve_norm": preserve_norm, "normalize": True}
    run = partial(cs.minimize_similarity, steps=3, **options)
    trees = [{"kernel": single(seed, SHAPE)} for seed in (7, 8)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    params, history = jax.jit(jax.vmap(run))(stacked)
    assert history.loss.shape == history.norms["kernel"].shape == (2, 4)
    for i, own in enumerate(trees):
        expected, expected_history = run(own)
        np.testing.assert_allclose(
            params["kernel"][i], expected["kernel"], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(history.loss[i], expected_history.loss, rtol=1e-5)


# Trees of other libraries.


def test_nnx_state_goes_back_into_its_model():
    model = nnx.Conv(1, 3, (2, 2), rngs=nnx.Rngs(0))
    before = oracle.float64(model.kernel[...])
    params, history = cs.minimize_similarity(
        nnx.state(model, nnx.Param), 2, optimizer=SGD
    )
    nnx.update(model, params)
    expected = descend(before, 2)[-1]
    np.testing.assert_allclose(model.kernel[...], expected, rtol=1e-4, atol=1e-6)
    assert history.norms.keys() == {"kernel"}


# Numbers.


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_sums_small_steps(dtype):
    """Each step is a twentieth of the least difference from 1 in the dtype."""
    step = float(jnp.finfo(dtype).eps) / 20
    params = {"kernel": jnp.ones((1, 1, 1, 2), dtype)}  # L = a^2 b^2, slope 2
    result, _ = cs.minimize_similarity(params, 100, optimizer=optax.sgd(step / 2))
    kernel = oracle.float64(result["kernel"])
    np.testing.assert_allclose(kernel, 1 - 100 * step, atol=20 * step)


@promoting_optax
@pytest.mark.parametrize(
    ("normalize", "preserve_norm", "channels"),
    [(False, True, [1]), (True, False, [1]), (True, True, [0, 1, 2])],
)
def test_zero_kernels_stay_zero(normalize, preserve_norm, channels):
    kernel = single(10, SHAPE).at[..., np.array(channels)].set(0)
    result, history = cs.minimize_similarity(
        {"kernel": kernel}, 3, normalize=normalize, preserve_norm=preserve_norm
    )
    np.testing.assert_array_equal(result["kernel"][..., np.array(channels)], 0)
    for leaf in jax.tree.leaves((result, history)):
        assert np.all(np.isfinite(leaf))


@promoting_optax
def test_preserved_norms_do_not_drift_over_many_steps():
    kernel = single(11, SHAPE) * jnp.array([1e-3, 1.0, 50.0]).reshape(1, 1, 1, 3)
    result, history = cs.minimize_similarity({"kernel": kernel}, 300, preserve_norm=True)
    np.testing.assert_allclose(
        channel_norms(result["kernel"]), channel_norms(kernel), rtol=1e-5
    )
    np.testing.assert_allclose(history.norms["kernel"], np.linalg.norm(kernel), rtol=1e-5)


# Errors.


@pytest.mark.parametrize("steps", [-1, np.int32(-3), 1.5, "10", None, True])
def test_steps_are_an_int_and_not_negative(steps):
    with pytest.raises(ValueError, match=r"steps is .*expected an int, 0 or"):
        cs.minimize_similarity(tree(), steps)
