"""Kernels on a mesh of several devices: the same results, and no kernel is gathered."""

import math
import re
from functools import cache, partial

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import convsim_jax as cs
from tests.library import oracle
from tests.library.kernel_cases import PENALTIES, every, every_option

pytestmark = pytest.mark.slow

DEVICES = 8
every_window = pytest.mark.parametrize("window", [(1, 1), (2, 2), (5, 3)], ids=str)
SHARDED, REPLICATED = P(None, None, None, "model"), P()


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    mesh = jax.make_mesh((DEVICES,), ("model",), axis_types=(request.param,))
    with jax.set_mesh(mesh):
        yield mesh


def kernel_of(window):
    shape = (*window, 4, 2 * DEVICES)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def put(tree, mesh, spec):
    """Kernels with the sharding, all else replicated."""

    def put_leaf(x):
        of_leaf = spec if np.ndim(x) == len(SHARDED) else REPLICATED
        return jax.device_put(x, NamedSharding(mesh, of_leaf))

    return jax.tree.map(put_leaf, tree)


def on_one_device(function, *arguments):
    """What it returns in NumPy arrays, for arrays that are on no mesh."""
    with jax.set_mesh(jax.make_mesh((1,), ("model",), devices=jax.devices()[:1])):
        return jax.tree.map(np.asarray, function(*arguments))


def params_of():
    return {
        "first": {"kernel": kernel_of((2, 2)), "bias": np.zeros(16, np.float32)},
        "last": {"kernel": kernel_of((1, 1))},
    }


def value_and_gradient(**options):
    def total(kernel):
        return cs.total_similarity({"kernel": kernel}, **options)

    return jax.jit(jax.value_and_grad(total))


@every_option
@pytest.mark.parametrize(
    ("window", "spec"),
    [((1, 1), SHARDED), ((2, 2), SHARDED), ((5, 3), SHARDED), ((2, 2), REPLICATED)],
    ids=str,
)
def test_loss_is_that_of_one_device_and_sends_only_sums(mesh, window, spec, options):
    kernel = kernel_of(window)
    placed = put(kernel, mesh, spec)
    program = value_and_gradient(**options).lower(placed).compile()
    value, gradient = program(placed)
    assert gradient.sharding.is_equivalent_to(NamedSharding(mesh, spec), kernel.ndim)
    exact = oracle.convolutional_similarity(kernel, **options)
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    expected = gradient_on_one_device(window, **options)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * largest)
    if spec == SHARDED and options["pairs"] == "all":
        assert_only_sums_leave_a_device(program.as_text(), window)


@cache
def gradient_on_one_device(window, **options):
    return on_one_device(value_and_gradient(**options), kernel_of(window))[1]


def assert_only_sums_leave_a_device(program, window):
    sizes = sizes_communicated(program)
    assert sizes, "the devices must add up their sums"
    assert not re.search(r"(all-to-all|collective-permute)(-start)?\(", program)
    # At most a sum of each of the 4 input channels from each device.
    assert max(sizes) <= 41 * 4 if window == (5, 3) else max(sizes) <= 4 * DEVICES
    assert max(sizes) < kernel_of(window).size


@every_option
@every_window
def test_only_sums_leave_a_device_that_holds_input_channels(mesh, window, options):
    taps, M = math.prod(window), 4
    kernel = np.ones((*window, 8 * DEVICES, M), np.float32)
    placed = put(kernel, mesh, P(None, None, "model", None))
    program = value_and_gradient(**options).lower(placed).compile().as_text()
    # At most the sums over input channels of the spectrum's planes, 23 of a 5x3 window.
    assert max(sizes_communicated(program)) <= 2 * taps * M < kernel.size // DEVICES


@pytest.mark.parametrize("axis", [2, 3], ids=["input", "output"])
def test_blocks_of_a_large_window_leave_kernels_where_they_are(mesh, axis):
    """Of 64 input channels in 8 blocks every device has one of each block."""
    kernel = kernel_in_blocks()
    placed = put(kernel, mesh, P(*[None] * axis, "model"))
    program = value_and_gradient(normalize=True).lower(placed).compile()
    # Sums over input channels, one a kernel, or over kernels: 23 planes of a block.
    sums = kernel.shape[3] if axis == 2 else 23 * kernel.shape[2] // 8
    assert " while(" in program.as_text()
    assert max(sizes_communicated(program.as_text())) == sums
    value, gradient = program(placed)
    assert_shardings_are_kept(placed, gradient)
    expected = in_blocks_on_one_device()
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    largest = np.abs(expected[1]).max()
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-5 * largest)


def kernel_in_blocks():
    shape = (5, 3, 8 * DEVICES, 6 * DEVICES)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@cache
def in_blocks_on_one_device():
    return on_one_device(value_and_gradient(normalize=True), kernel_in_blocks())


def sizes_communicated(program):
    """The number of elements of each array that a compiled program communicates."""
    collectives = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    results = re.findall(rf"= (.*?) (?:{collectives})(?:-start)?\(", program)
    return [
        math.prod(int(size) for size in dimensions.split(",") if size)
        for result in results
        for dimensions in re.findall(r"\w+\[([\d,]*)\]", result)
    ]


def test_what_communicates_is_found():
    program = "%a = (f32[2,3]{1,0}, f32[]) all-reduce(%b), x\n%c = f32[4,8] add(%a)"
    assert sizes_communicated(program) == [6, 1]


def test_small_layers_of_one_shape_and_two_shardings(mesh):
    kernel = kernel_of((1, 1))
    params = {
        "a": {"kernel": put(kernel, mesh, SHARDED)},
        "b": {"kernel": put(2 * kernel, mesh, REPLICATED)},
        "c": {"kernel": put(3 * kernel, mesh, SHARDED)},
    }
    exact = oracle.convolutional_similarity(kernel) * (1 + 2**4 + 3**4)
    np.testing.assert_allclose(jax.jit(cs.total_similarity)(params), exact, rtol=1e-5)
    np.testing.assert_allclose(cs.total_similarity(params), exact, rtol=1e-5)


def assert_shardings_are_kept(before, after):
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert b.sharding.is_equivalent_to(a.sharding, a.ndim)


@pytest.mark.usefixtures("relaxed_jax")  # optax.adam promotes
@pytest.mark.parametrize("preserve_norm", [False, True])
@pytest.mark.parametrize("spec", [SHARDED, REPLICATED], ids=["sharded", "replicated"])
def test_initialization_keeps_shardings(mesh, spec, preserve_norm):
    params = put(params_of(), mesh, spec)
    result, history = cs.minimize_similarity(params, 3, preserve_norm=preserve_norm)
    assert_shardings_are_kept(params, result)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (result, history),
        initialized_on_one_device(preserve_norm),
    )


@cache
def initialized_on_one_device(preserve_norm):
    minimize = partial(cs.minimize_similarity, steps=3, preserve_norm=preserve_norm)
    return on_one_device(minimize, params_of())


@pytest.mark.parametrize("spec", [SHARDED, REPLICATED], ids=["sharded", "replicated"])
def test_transformation_keeps_shardings(mesh, spec):
    params = put(params_of(), mesh, spec)
    optimizer = optax.chain(cs.add_convolutional_similarity(0.1), optax.sgd(0.1))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(params, state, params)
        return optax.apply_updates(params, updates), updates, state

    stepped, updates, _ = step(params, optimizer.init(params))
    assert_shardings_are_kept(params, stepped)
    assert_shardings_are_kept(params, updates)
    # The gradient of the step's own loss is the parameters themselves here.
    expected = jax.tree.map(
        lambda before, slope: before - 0.1 * (before + 0.1 * slope),
        params_of(),
        slopes_on_one_device(),
    )
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, stepped, expected)


@cache
def slopes_on_one_device():
    return on_one_device(jax.grad(cs.total_similarity), params_of())


def test_report_and_matrices(mesh):
    params = put(params_of(), mesh, SHARDED)
    kernel = params["first"]["kernel"]
    for matrix in (cs.similarity_matrix, cs.kernel_cosine_similarity):
        expected = on_one_device(matrix, kernel_of((2, 2)))
        np.testing.assert_allclose(matrix(kernel), expected, rtol=1e-4, atol=1e-6)
    expected = on_one_device(cs.similarity_report, params_of())
    for ours, theirs in zip(
        cs.similarity_report(params).layers, expected.layers, strict=True
    ):
        np.testing.assert_allclose(ours[2:], theirs[2:], rtol=1e-4)


@every(PENALTIES)
@pytest.mark.parametrize("spec", [SHARDED, REPLICATED], ids=["sharded", "replicated"])
def test_orthogonality_penalties(mesh, spec, case):
    placed = put(kernel_of((2, 2)), mesh, spec)
    value, gradient = jax.jit(jax.value_and_grad(case.function))(placed)
    assert_shardings_are_kept(placed, gradient)
    expected = penalty_on_one_device(case.function)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(case.function(placed), expected[0], rtol=1e-5)


@cache
def penalty_on_one_device(penalty):
    return on_one_device(jax.jit(jax.value_and_grad(penalty)), kernel_of((2, 2)))


@every_option
@pytest.mark.parametrize(
    "shape", [(2, 2, 4, 6), (5, 5, 32, 48)], ids=["small", "in blocks"]
)
def test_each_device_has_kernels_of_its_own(shape, options):
    """Under `shard_map` parameters vary: a loop over blocks has to start so."""
    mesh = jax.make_mesh((2,), ("device",), (AxisType.Auto,), devices=jax.devices()[:2])
    kernels = np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32)

    def one(kernel):
        loss = partial(cs.convolutional_similarity, **options)
        return jax.tree.map(lambda x: x[None], jax.value_and_grad(loss)(kernel[0]))

    spec = P("device")
    mapped = jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=True)
    result = jax.jit(mapped)(kernels)
    for i, kernel in enumerate(kernels):
        value, gradient = value_and_gradient(**options)(kernel)
        np.testing.assert_allclose(result[0][i], value, rtol=1e-5)
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(result[1][i], gradient, rtol=1e-4, atol=1e-5 * largest)
