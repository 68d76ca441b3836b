"""Steps of training on images that lie ready: how fast, and what the loss adds to."""

import jax
import jax.numpy as jnp
import optax

import convsim_jax as cs
from experiments.benchmark.timing import Program, compiled, queued
from experiments.models import build
from experiments.models.convolution import compiler_options
from experiments.train.step import Batch, Network, train_step

STEP, LOSS = "training step", "all pairs of its kernels"
TRAINED = ("cnn", "resnet18")
CLASSES = 10
SIZE = 32
LEARNING_RATE, MOMENTUM = 0.1, 0.9


def dtype() -> str:
    """What is computed in; the weights are float32."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def steps_a_call() -> int:
    """An epoch is one program, of which some steps are enough to measure."""
    return 2 if jax.default_backend() == "cpu" else 50


def programs(name: str, batch_size: int) -> dict[str, Program]:
    """Some steps of SGD with momentum on a network; and the loss of its kernels alone."""
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
    }
