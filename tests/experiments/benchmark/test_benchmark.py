"""The benchmark: networks as published, programs that agree, and their times."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import torch_programs
from experiments.benchmark.networks import NETWORKS, random_kernels, small
from experiments.benchmark.programs import (
    LOSSES,
    SGD,
    direct,
    losses,
    penalties,
    yardsticks,
)
from experiments.benchmark.timing import Program, compiled, in_turn
from experiments.models import build
from tests.library import oracle

TINY = [(3, 3, 1, 4), (1, 1, 4, 3)]
# All parameters that the papers and torchvision count, less those of the last linear
# layer and, two a channel, of batch normalisation (VGG: less the three linear layers
# and one bias a channel).
CONV_PARAMETERS = {
    "resnet18": 11_173_962 - (512 * 10 + 10) - 2 * 4_800,
    "resnet50": 25_557_032 - (2048 * 1000 + 1000) - 2 * 26_560,
    "vgg19": 143_667_240 - 123_642_856 - 5_504,
    "wrn28-10": 36_479_194 - (640 * 10 + 10) - 2 * 8_976,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_published_number_of_weights(name):
    assert sum(map(np.prod, NETWORKS[name]())) == CONV_PARAMETERS[name]


@pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation promotes
@pytest.mark.parametrize("name", NETWORKS)
def test_models_are_made_of_those_kernels(name):
    model = build({"resnet50": "resnet50-imagenet"}.get(name, name), classes=10)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    shapes = [leaf.shape for leaf in jax.tree.leaves(variables["params"])]
    kernels = [shape for shape in shapes if len(shape) == 4]
    assert sorted(kernels) == sorted(NETWORKS[name]())


def test_kernels_have_the_variance_of_an_initializer():
    (kernel,) = random_kernels([(3, 3, 32, 64)]).values()
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(9 * 32), rtol=0.02)


def test_small_kernels_of_the_large_windows():
    kernels = random_kernels([(3, 3, 2, 4), (1, 1, 2, 2), (3, 3, 1, 4), (3, 3, 4, 4)])
    shapes = [kernel.shape for kernel in small(kernels, 72).values()]
    assert shapes == [(3, 3, 2, 4), (3, 3, 1, 4)]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_the_options(name):
    kernels = random_kernels(TINY)
    value, gradient = losses()[name](kernels)
    exact = sum(
        oracle.convolutional_similarity(np.asarray(kernel), **LOSSES[name])
        for kernel in kernels.values()
    )
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, kernels)


def test_definition_agrees():
    kernels = random_kernels(TINY)
    expected, slopes = losses()["adjacent pairs"](kernels)
    value, gradient = direct()(kernels)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient,
        slopes,
    )


def test_pytorch_agrees():
    pytest.importorskip("torch", reason="an extra of the benchmark")
    kernels = random_kernels(TINY)
    calls = torch_programs.programs(kernels).values()
    for call, ours in zip(
        calls, (losses()["adjacent pairs"], penalties()["OCNN"]), strict=True
    ):
        value, slopes = call()
        expected, gradient = ours(kernels)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for slope, other in zip(slopes, gradient.values(), strict=True):
            there = np.transpose(other, (3, 2, 0, 1))
            np.testing.assert_allclose(slope, there, rtol=1e-4, atol=1e-5)


def test_yardsticks():
    kernels = random_kernels(TINY)
    programs = yardsticks(kernels)
    copy, arguments = programs["copy"]
    jax.tree.map(np.testing.assert_array_equal, copy(*arguments), kernels)
    update, arguments = programs[SGD]
    updated, _ = update(*arguments)  # the gradient is the kernels themselves
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 0.9 * b, rtol=1e-6), updated, kernels
    )


def test_programs_run_in_turn_and_slow_ones_less_often():
    calls = []

    def program(name, seconds):
        return Program(lambda: (calls.append(name), time.sleep(seconds)), 1)

    timings = in_turn(
        {"slow": program("slow", 0.03), "fast": program("fast", 0)},
        seconds=0.01,
        repeats=5,
    )
    assert calls == ["slow", "fast"] * 3 + ["fast"] * 3
    assert (timings["slow"].calls, timings["fast"].calls) == (2, 5)
    assert timings["slow"].median > 0.03


def test_time_of_a_program_is_that_of_one_of_its_runs():
    program = Program(lambda: time.sleep(0.03), 1, times=1000)
    timing = in_turn({"often": program}, seconds=0.1, repeats=9)["often"]
    assert 0.03e-3 <= timing.median < 0.03
    assert timing.calls <= 4  # that many take more than 0.1 s


def test_compiled_program_runs_as_often_as_it_says():
    calls = []

    def counted(kernels):
        jax.debug.callback(lambda: calls.append(1))
        return kernels["x"] + 1

    program = compiled(counted, {"x": jnp.ones(3)}, times=5)
    np.testing.assert_array_equal(program.call(), [2, 2, 2])
    jax.effects_barrier()
    assert len(calls) == program.times == 5


def test_compiled_program_knows_its_memory():
    x = jnp.ones((256, 256))

    def two_products(kernels):
        return (kernels["x"] @ kernels["x"]) @ kernels["x"]

    program = compiled(two_products, {"x": x})
    assert program.extra_memory >= 1  # the first product
    assert program.weights == x.size
    assert program.compile_seconds > 0
    np.testing.assert_array_equal(program.call(), jnp.full_like(x, 256.0**2))
