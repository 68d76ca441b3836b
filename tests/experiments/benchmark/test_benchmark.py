"""The benchmark: networks as published, updates that agree, and their times."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmark import networks, timing, torch_programs, updates
from experiments.benchmark.updates import LOSSES, PENALTIES, SGD, STRENGTH
from tests.library import oracle

TINY = {"first/kernel": (3, 3, 1, 4), "last/kernel": (1, 1, 4, 3)}
# All parameters that the papers and torchvision count, less those of the last linear
# layer and, two a channel, of batch normalisation (VGG: less the three linear layers
# and one bias a channel).
CONV_PARAMETERS = {
    "resnet18": 11_173_962 - (512 * 10 + 10) - 2 * 4_800,
    "resnet50": 25_557_032 - (2048 * 1000 + 1000) - 2 * 26_560,
    "vgg19": 143_667_240 - 123_642_856 - 5_504,
    "wrn28-10": 36_479_194 - (640 * 10 + 10) - 2 * 8_976,
}


@pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation promotes
@pytest.mark.parametrize("name", CONV_PARAMETERS)
def test_networks_have_the_published_number_of_weights(name):
    shapes = networks.kernel_shapes(name).values()
    assert sum(map(np.prod, shapes)) == CONV_PARAMETERS[name]


def test_kernels_have_the_variance_of_an_initializer():
    (kernel,) = networks.random_kernels({"kernel": (3, 3, 32, 64)}).values()
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(9 * 32), rtol=0.02)


def numerical_gradient(loss, kernel):
    """Central differences of a loss in float64."""
    gradient = np.zeros(kernel.shape)
    for index in np.ndindex(kernel.shape):
        step = np.zeros(kernel.shape)
        step[index] = 1e-6
        gradient[index] = (loss(kernel + step) - loss(kernel - step)) / 2e-6
    return gradient


@pytest.mark.parametrize("name", [SGD, *LOSSES])
def test_updates_take_the_gradient_and_that_of_the_loss(name):
    kernels = networks.random_kernels(TINY)
    transformation = updates.transformations()[name]
    zero = jax.tree.map(jnp.zeros_like, kernels)
    added, _ = transformation.update(zero, transformation.init(kernels), kernels)
    for path, kernel in kernels.items():
        expected = np.zeros(kernel.shape)
        if name != SGD:

            def loss(kernel):
                return oracle.convolutional_similarity(kernel, **LOSSES[name])

            expected = numerical_gradient(loss, np.asarray(kernel, np.float64))
        np.testing.assert_allclose(added[path] / STRENGTH, expected, rtol=1e-3, atol=1e-5)


def test_update_is_that_of_sgd_with_momentum():
    kernels = networks.random_kernels(TINY)
    optimizer = updates.sgd(optax.identity())
    gradient = jax.tree.map(jnp.ones_like, kernels)
    carry = (kernels, optimizer.init(kernels))
    for _ in range(2):
        carry = updates.update(optimizer)(carry, gradient)
    moved = 1e-3 * (1 + 1.9)
    for path, kernel in kernels.items():
        np.testing.assert_allclose(carry[0][path], kernel - moved, rtol=1e-5)


def test_pytorch_agrees():
    torch = pytest.importorskip("torch", reason="an extra of the benchmark")
    kernel = networks.random_kernels(TINY)["first/kernel"]
    weight = torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1))
    exact = oracle.convolutional_similarity(np.asarray(kernel), pairs="adjacent")
    np.testing.assert_allclose(torch_programs.adjacent(weight), exact, rtol=1e-5)
    np.testing.assert_allclose(
        torch_programs.ocnn(weight), PENALTIES["OCNN"](kernel), rtol=1e-5
    )
    call = torch_programs.update({"kernel": kernel}, torch_programs.adjacent)
    assert call() == pytest.approx(float(kernel[-1, -1, -1, -1]), rel=1e-4)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a program makes them pass."""
    passed = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: sum(passed))
    return passed


def test_programs_run_in_turn_and_slow_ones_less_often(clock):
    calls = []

    def program(name, seconds):
        return timing.Program(lambda: (calls.append(name), clock.append(seconds)))

    timings = timing.in_turn(
        {"slow": program("slow", 3.0), "fast": program("fast", 0.1)},
        seconds=1.0,
        repeats=5,
    )
    assert calls == ["slow", "fast"] * 3 + ["fast"] * 3
    assert (timings["slow"].calls, timings["fast"].calls) == (2, 5)
    assert timings["slow"].median == 3.0


def test_time_of_a_program_is_that_of_one_of_its_runs(clock):
    program = timing.Program(lambda: clock.append(3.0), times=1000)
    measured = timing.in_turn({"often": program}, seconds=8.0, repeats=9)["often"]
    assert measured.median == pytest.approx(3e-3)
    assert measured.calls == 3  # that many take more than 8 s


def test_compiled_program_goes_on_from_where_it_was_and_uses_up_no_argument():
    x = jnp.ones(3)
    program = timing.compiled(lambda carry, y: carry + y, x, x, times=5)
    np.testing.assert_array_equal(program.call(), [6, 6, 6])
    np.testing.assert_array_equal(program.call(), [11, 11, 11])
    np.testing.assert_array_equal(x, [1, 1, 1])
    assert program.compile_seconds > 0


def test_compiled_program_knows_its_memory():
    x = jnp.ones((256, 256))
    program = timing.compiled(lambda carry, y: (carry @ y) @ y, x, x)
    assert program.extra_memory >= x.nbytes  # the first product
    fresh = timing.compiled(lambda carry, y: carry + y, x, x)
    assert fresh.extra_memory == 0
