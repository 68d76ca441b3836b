"""Feature maps beside a network's output: of every framework, inside transformations."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import convsim_jax as cs
from tests.library.flax_networks import (
    LinenBlock,
    LinenNet,
    X,
    expected_maps,
    images,
    linen_variables,
)
from tests.library.kernel_cases import convolve, single

pytestmark = pytest.mark.usefixtures("relaxed_jax")


def close(result, expected):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), result, expected
    )


# Networks beside what they and their maps are by hand, `cut` at the input of each layer.


def linear(x):
    return x


def parameters(seed=0):
    kernels = {
        name: {"kernel": single(seed, shape)}
        for name, shape in [("a", (3, 3, 3, 4)), ("b", (3, 2, 4, 4)), ("c", (1, 1, 4, 6))]
    }
    kernels["a"]["bias"], kernels["c"]["bias"] = jnp.arange(4.0), jnp.arange(6.0)
    stack = single(seed + 1, (3, 3, 3, 3, 3))
    return kernels | {"stack": stack, "square": stack[0]}


def biased(params, x, cut):
    """One with a bias, one without, and a third whose bias is added after a reshape."""
    a = convolve(cut(x), params["a"]["kernel"]) + params["a"]["bias"].reshape(1, 1, 1, 4)
    b = convolve(cut(jnp.tanh(a)), params["b"]["kernel"])
    # The shortcut is no bias, and a normalization's shift neither.
    normalized = (b + a) / 2 + params["a"]["bias"]
    c = convolve(cut(jnp.tanh(normalized)), params["c"]["kernel"])
    c = c.reshape(-1, 6) + params["c"]["bias"][None]
    maps = {"a/kernel": a, "b/kernel": b, "c/kernel": c.reshape(*x.shape[:-1], 6)}
    return c, maps


def again(params, x, cut):
    """A kernel that is applied twice has an entry for each time."""
    first = convolve(cut(x), params["square"])
    second = convolve(cut(jnp.tanh(first)), params["square"])
    return second, {"square": first, "square#2": second}


@jax.custom_vjp
def own(x, kernel):
    """A convolution with a derivative of its own."""
    return convolve(x, kernel)


def own_backward(operands, slope):
    return tuple(2 * change for change in jax.vjp(convolve, *operands)[1](slope))


own.defvjp(lambda *operands: (own(*operands), operands), own_backward)


def with_own(params, x, cut):
    a = own(cut(x), params["a"]["kernel"])
    b = own(cut(jnp.tanh(a)), params["b"]["kernel"])
    return b, {"a/kernel": a, "b/kernel": b}


NAMES = ["stack", "stack#2", "stack#3"]


def looped(params, x, cut, activation=jnp.tanh, step=1):
    maps = dict.fromkeys(NAMES)
    for name, kernel in [*zip(NAMES, params["stack"], strict=True)][::step]:
        maps[name] = convolve(cut(x), kernel)
        x = activation(maps[name])
    return x, maps


def scanned(params, x, wrap=lambda f: f, activation=jnp.tanh, **options):
    step = wrap(lambda x, kernel: (activation(convolve(x, kernel)), None))
    return jax.lax.scan(step, x, params["stack"], **options)[0]


def nested(params, x):
    """A scan of scans, of the same kernels."""

    def twice(x, _):
        return scanned(params, x), None

    return jax.lax.scan(twice, x, None, length=2)[0]


def looped_twice(params, x, cut):
    x, first = looped(params, x, cut)
    x, second = looped(params, x, cut)
    later = {f"stack#{n}": maps for n, maps in enumerate(second.values(), 4)}
    return x, first | later


def forward(by_hand):
    return lambda params, x: by_hand(params, x, linear)[0]


NETWORKS = {
    "biases": (forward(biased), biased),
    "own derivative": (forward(with_own), with_own),
    "applied again": (forward(again), again),
    "scan": (scanned, looped),
    "unrolled scan": (partial(scanned, unroll=2), looped),
    "scan from the last on": (
        partial(scanned, reverse=True),
        partial(looped, step=-1),
    ),
    "scan of scans": (nested, looped_twice),
    "scan of remat": (partial(scanned, wrap=jax.checkpoint), looped),
    "scan of convolutions alone": (
        partial(scanned, activation=linear),
        partial(looped, activation=linear),
    ),
}


def penalty(maps):
    return sum(cs.decorrelation(f) * n for n, f in enumerate(maps.values(), 1))


def regularized(apply, stop_gradient, params):
    function = cs.with_feature_maps(apply, stop_gradient=stop_gradient)
    output, maps = function(params, X)
    return jnp.sum(jnp.sin(output)) + penalty(maps)


@pytest.mark.parametrize("name", NETWORKS)
def test_output_and_maps(name):
    """Eager, and compiled."""
    apply, by_hand = NETWORKS[name]
    params, function = parameters(), cs.with_feature_maps(apply)
    output, maps = function(params, X)
    expected = by_hand(params, X, linear)
    assert list(maps) == list(expected[1])
    close((output, maps), expected)
    close(jax.jit(function)(params, X), expected)


def test_a_batch_without_images_has_maps_without_images():
    for name, shape in (("biases", (6, 5, 4)), ("scan", (6, 5, 3))):
        apply, _ = NETWORKS[name]
        _, maps = cs.with_feature_maps(apply)(parameters(), X[:0])
        assert next(iter(maps.values())).shape == (0, *shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stop_gradient", [False, True])
def test_gradient_of_a_regularized_loss(name, stop_gradient):
    """The penalty's gradient is all the option changes."""
    apply, by_hand = NETWORKS[name]

    def expected(params):
        output, _ = by_hand(params, X, linear)
        _, maps = by_hand(params, X, jax.lax.stop_gradient if stop_gradient else linear)
        return jnp.sum(jnp.sin(output)) + penalty(maps)

    params, loss = parameters(), partial(regularized, apply, stop_gradient)
    close(jax.jit(jax.grad(loss))(params), jax.jit(jax.grad(expected))(params))


def test_stopping_the_gradient_takes_no_further_convolution():
    """The kernel's gradient is that of a sum, not a sum of two gradients."""

    def count(stop_gradient):
        loss = partial(regularized, forward(biased), stop_gradient)
        program = jax.jit(jax.grad(loss)).lower(parameters()).compile()
        return program.as_text().count(" convolution(")

    assert count(stop_gradient=True) == count(stop_gradient=False) > 3


@pytest.mark.slow
def test_forward_mode_and_second_derivatives():
    @jax.jit
    def loss(params):
        function = cs.with_feature_maps(forward(biased), stop_gradient=True)
        return penalty(function(params, X)[1])

    def by_hand(params):
        return penalty(biased(params, X, jax.lax.stop_gradient)[1])

    params = parameters()
    _, slope = jax.jvp(loss, (params,), (params,))
    close(slope, jax.jvp(by_hand, (params,), (params,))[1])
    curvature = jax.grad(lambda p: jax.jvp(loss, (p,), (params,))[1])(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(curvature))


def test_under_vmap_over_networks():
    seeds = [parameters(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    result = jax.vmap(cs.with_feature_maps(forward(biased)), (0, None))(stacked, X)
    close(result, jax.vmap(partial(biased, cut=linear), (0, None))(stacked, X))


def test_a_branch_that_is_not_taken_has_maps_of_zeros():
    def apply(params, x, first):
        def of_a(x):
            return convolve(x, params["a"]["kernel"])

        return jax.lax.cond(first, of_a, lambda x: jnp.tile(x[..., :1], 4), x)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(params, first):
        _, maps = cs.with_feature_maps(apply)(params, X, first)
        return penalty(maps), maps

    params = parameters()
    (_, maps), slope = loss(params, True)
    close(maps["a/kernel"], convolve(X, params["a"]["kernel"]))
    assert np.any(slope["a"]["kernel"])
    (value, maps), slope = loss(params, False)
    assert value == 0
    assert not np.any(maps["a/kernel"])
    assert not np.any(slope["a"]["kernel"])


# Frameworks.


@pytest.mark.parametrize("block", [nn.remat(LinenBlock), nn.jit(LinenBlock)])
def test_linen(block):
    model = LinenNet(block)
    variables = linen_variables(model)
    function = cs.with_feature_maps(model.apply)
    (_, state), maps = function(variables, X, train=True, mutable=["batch_stats"])
    assert list(maps) == ["params/stem/kernel", "params/block/conv/kernel"]
    assert list(state) == ["batch_stats"]
    _, maps = function(variables, X, train=False)
    expected = expected_maps(variables)
    close(maps["params/block/conv/kernel"], expected["block/conv"].before)
    stem = nn.Conv(4, (3, 3), strides=2)  # before its normalization
    expected = stem.apply({"params": variables["params"]["stem"]}, X)
    close(maps["params/stem/kernel"], expected)


@pytest.mark.slow
def test_equinox_is_regularized_in_two_lines():
    """Channels first, one image a call, and the module itself as parameters."""
    keys = jax.random.split(jax.random.key(0))
    first = eqx.nn.Conv2d(3, 4, 3, key=keys[0])
    last = eqx.nn.ConvTranspose2d(4, 5, 3, stride=2, key=keys[1])
    model = eqx.nn.Sequential([first, eqx.nn.Lambda(jax.nn.relu), last])
    x = images(2, 3, 7, 6)

    def of_library(model):
        return cs.with_feature_maps(lambda model, x: jax.vmap(model)(x))(model, x)

    def by_hand(model):
        first = jax.vmap(model[0])(x)
        last = jax.vmap(model[2])(jax.nn.relu(first))
        maps = {"layers/0/weight": first, "layers/2/weight": last}
        return last, {path: jnp.moveaxis(f, 1, -1) for path, f in maps.items()}

    def results(function):
        @partial(eqx.filter_value_and_grad, has_aux=True)
        def regularized(model):
            output, maps = function(model)
            return output.sum() + penalty(maps), (output, maps)

        return eqx.filter_jit(regularized)(model)

    close(results(of_library), results(by_hand))


@pytest.mark.parametrize("window", [(3,), (3, 1, 2)])
def test_one_and_three_axes(window):
    model = nn.Conv(6, window, feature_group_count=3)
    x = images(2, *[5] * len(window), 3)
    variables = model.init(jax.random.key(0), x)
    output, maps = cs.with_feature_maps(model.apply)(variables, x)
    close(maps["params/kernel"], output)


# What is chosen, and what cannot be.


def in_a_while_loop(params, x):
    def step(state):
        return state[0] + 1, jnp.tanh(convolve(state[1], params["kernel"]))

    x = convolve(x, params["first"])
    return jax.lax.while_loop(lambda state: state[0] < 2, step, (0, x))[1]


def test_layers_choose_and_leave_out():
    params = {"first": images(3, 3, 3, 3), "kernel": images(3, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"maps of kernel cannot be .* the while"):
        cs.with_feature_maps(in_a_while_loop)(params, X)
    layers = cs.conv_layers(in_a_while_loop, params, X)
    chosen = [layer for layer in layers if layer.path == "first"]
    _, maps = cs.with_feature_maps(in_a_while_loop, layers=chosen)(params, X)
    assert list(maps) == ["first"]
    with pytest.raises(ValueError, match="layers are none; expected some that apply has"):
        cs.with_feature_maps(in_a_while_loop, layers=[])(params, X)


def test_a_function_that_does_more_than_convolve_is_refused():
    @jax.custom_jvp
    def block(x, kernel):
        return jnp.tanh(convolve(x, kernel))

    block.defjvp(lambda primals, tangents: (block(*primals), tangents[0]))
    with pytest.raises(ValueError, match=r"maps of 0 cannot be .* the custom_jvp_call"):
        cs.with_feature_maps(lambda p, x: block(x, *p))([images(3, 3, 3, 3)], X)


def test_without_convolutions():
    with pytest.raises(ValueError, match="apply has no convolution whose kernel comes"):
        cs.with_feature_maps(lambda p, x: x * p)(jnp.ones(()), X)
