"""Networks whose training is measured: their conv kernels, and a step of SGD."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import convsim_jax as cs
from experiments.fit.step import Batch, Network, train_step
from experiments.losses import Decorrelation
from experiments.models import build

Shape = tuple[int, ...]
Kernels = dict[str, jax.Array]

# What the models are called in `experiments.models`, height of images, classes.
NETWORKS = {
    "resnet18": ("resnet18", 32, 10),
    "resnet50": ("resnet50-imagenet", 224, 1000),
    "vgg19": ("vgg19", 32, 10),
    "wrn28-10": ("wrn28-10", 32, 10),
    "cnn": ("cnn", 32, 10),
}


def network(name: str, optimizer: optax.GradientTransformation) -> Network:
    """The shapes of a network of float32 weights about to be trained."""
    model, height, classes = NETWORKS[name]

    def make(key: jax.Array) -> Network:
        image = jnp.zeros((1, height, height, 3))
        variables = dict(build(model, classes=classes).init(key, image))
        state = optimizer.init(variables["params"])
        return Network(variables, state, jnp.float32(0), jnp.int32(0))

    return jax.eval_shape(make, jax.random.key(0))


def batch_of(name: str, size: int) -> Batch:
    """The shapes of a batch of images and labels."""
    shape = (size, *[NETWORKS[name][1]] * 2, 3)
    return jax.eval_shape(lambda: Batch(jnp.zeros(shape), jnp.zeros(size, jnp.int32)))


def step_of(
    name: str,
    optimizer: optax.GradientTransformation,
    dtype: Any,
    of_maps: Decorrelation | None = None,
) -> Callable[[Network, Batch], Network]:
    """A step of training that computes in that dtype, with a loss of the maps added."""
    model = build(NETWORKS[name][0], classes=NETWORKS[name][2], dtype=dtype)
    return lambda network, batch: train_step(
        model, optimizer, 0.0, network, batch, None, of_maps, 1.0
    )


def kernel_shapes(name: str) -> dict[str, Shape]:
    """The shapes `(*window, C, M)` of the conv kernels of a network, by their paths."""
    params = network(name, optax.identity()).variables["params"]
    kernels = jax.eval_shape(cs.conv_kernels, params)
    return {path: kernel.shape for path, kernel in kernels.items()}


def random_kernels(shapes: dict[str, Shape]) -> Kernels:
    """Kernels as an initializer draws them: of variance one over the fan-in."""
    random = np.random.default_rng(0)

    def draw(shape: Shape) -> jax.Array:
        kernel = random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        return jax.device_put(kernel.astype("f4"))

    return {path: draw(shape) for path, shape in shapes.items()}


def random_arrays(tree: chex.ArrayTree) -> Any:
    """Arrays of such shapes: random numbers from 0 to 0.1, and zeros for integers."""
    random = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(0.1 * random.random(leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(draw, tree)
