"""Steps of training on images that lie ready: how fast; and what else a step may cost."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

import convsim_jax as cs
from experiments.benchmark.timing import Program, compiled, queued
from experiments.data.augmentation import augmented
from experiments.fit.engine import CROP
from experiments.fit.step import Batch, Network, train_step
from experiments.models import build
from experiments.models.convolution import compiler_options

STEP, LOSS = "training step", "all pairs of its kernels"
INPUT = "drawing its images"
TRAINED = ("cnn", "resnet18")
CLASSES = 10
SIZE = 32
RESIDENT = 8192  # images on the device, of which those of a step are drawn
LEARNING_RATE, MOMENTUM = 0.1, 0.9
MIDDLE = 127.5  # of 0 to 255


def dtype() -> str:
    """What is computed in; the weights are float32."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def steps_a_call() -> int:
    """An epoch is one program, of which some steps are enough to measure."""
    return 2 if jax.default_backend() == "cpu" else 50


def programs(name: str, batch_size: int) -> dict[str, Program]:
    """Some steps of SGD with momentum on a network; the loss alone; the images alone."""
    model = build(name, classes=CLASSES, dtype=dtype())
    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)
    key = jax.random.key(0)
    images = jax.random.normal(key, (2, batch_size, SIZE, SIZE, 3))
    labels = jax.random.randint(key, (2, batch_size), 0, CLASSES)
    variables = jax.jit(model.init)(key, images[0, :1])
    network = Network(
        variables, optimizer.init(variables["params"]), jnp.float32(0), jnp.int32(0)
    )

    def steps(network: Network, batches: Batch, count: jax.Array) -> Network:
        def step(number: jax.Array, network: Network) -> Network:
            batch = jax.tree.map(lambda array: array[number % 2], batches)
            return train_step(model, optimizer, 0.0, network, batch)

        return jax.lax.fori_loop(0, count, step, network)

    params = variables["params"]
    count = jnp.int32(steps_a_call())
    options = compiler_options()
    return {
        STEP: compiled(steps, params, (network, Batch(images, labels), count), options),
        LOSS: compiled(
            jax.value_and_grad(cs.total_similarity),
            params,
            options=options,
            times=queued(),
        ),
        INPUT: compiled(partial(drawn, batch_size), params, resident_images(), options),
    }


def resident_images() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Noise of 8 bits, the order that it is taken in, and how many steps to take."""
    key = jax.random.key(0)
    images = jax.random.bits(key, (RESIDENT, SIZE, SIZE, 3), jnp.uint8)
    return images, jax.random.permutation(key, RESIDENT), jnp.int32(steps_a_call())


def drawn(
    batch_size: int, images: jax.Array, order: jax.Array, count: jax.Array
) -> jax.Array:
    """The last of some batches: chosen, cropped, flipped and normalised."""

    def step(number: jax.Array, _: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(order, number * batch_size, batch_size)
        key = jax.random.fold_in(jax.random.key(0), number)
        return (augmented(key, images[rows], CROP).astype(dtype()) - MIDDLE) / MIDDLE

    shape = (batch_size, *images.shape[1:])
    return jax.lax.fori_loop(0, count, step, jnp.zeros(shape, dtype()))
