"""Training in the benchmark: PyTorch trains the same networks in the same way."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict

from experiments.benchmark import torch_networks, training_step
from experiments.benchmark.training_step import CLASSES, LEARNING_RATE, MOMENTUM, TRAINED
from experiments.fit.step import Batch, Network, train_step
from experiments.models import build
from experiments.models.normalization import BatchNorm

torch = pytest.importorskip("torch", reason="an extra of the benchmark")
pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation
IMAGE = (1, 32, 32, 3)


def paths_in_order_of_use(model):
    paths = []

    def record(method, args, kwargs, context):
        if isinstance(context.module, nn.Conv | BatchNorm | nn.Dense):
            paths.append(context.module.path)
        return method(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(IMAGE)))
    return paths


def weights_of(layer, maps):
    """In Flax's layout; `maps` is the shape of those that a linear layer flattens."""
    weight = layer.weight.detach().numpy()
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    if isinstance(layer, torch.nn.BatchNorm2d):
        return {"scale": weight, "bias": bias}
    if isinstance(layer, torch.nn.Conv2d):
        return {"kernel": weight.transpose(2, 3, 1, 0)}
    rows = weight.reshape(len(weight), -1, *maps).transpose(2, 3, 1, 0)
    return {"kernel": rows.reshape(-1, len(weight)), "bias": bias}


def as_flax(theirs, ours, maps):
    kinds = torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear
    layers = [layer for layer in theirs.modules() if isinstance(layer, kinds)]
    paths = paths_in_order_of_use(ours)
    return jax.tree.map(
        np.array,
        unflatten_dict(
            {
                path: weights_of(layer, maps)
                for path, layer in zip(paths, layers, strict=True)
            }
        ),
    )


def both(name):
    """A narrow network in PyTorch, ours, and the weights of the first as ours."""
    torch.manual_seed(0)
    theirs = torch_networks.network(name, width=1 / 16)
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = build(name, classes=CLASSES, width=1 / 16)
    maps = (4, 4) if name == "cnn" else (1, 1)
    return theirs, ours, lambda: as_flax(theirs, ours, maps)


@pytest.mark.parametrize("name", TRAINED)
def test_as_many_parameters(name):
    with torch.device("meta"):
        theirs = torch_networks.network(name)
    ours = build(name, classes=CLASSES)
    variables = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros(IMAGE))
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        leaf.size for leaf in jax.tree.leaves(variables["params"])
    )


def test_the_same_resnet():
    theirs, ours, weights = both("resnet18")
    images = torch.randn(3, 3, 12, 12)
    expected = theirs(images).detach().numpy()
    logits, _ = jax.jit(
        lambda params, images: ours.apply(
            {"params": params}, images, train=True, mutable=["batch_stats"]
        )
    )(weights(), images.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_images_of_a_step_are_drawn_from_those_on_the_device():
    images, order, _ = training_step.resident_images()
    assert sorted(np.asarray(order)) == list(range(len(images)))
    batch = training_step.drawn(5, images[:20], np.arange(20), np.int32(2))
    # The last of two batches of 5: the middle of each is somewhere in its source, or
    # in that mirrored.
    assert batch.shape == (5, 32, 32, 3) and -1 <= batch.min() < batch.max() <= 1
    levels = np.rint(127.5 + 127.5 * np.asarray(batch)).astype(int)
    for drawn, source in zip(levels, np.asarray(images[5:10], int), strict=True):
        middle = drawn[8:24, 8:24]
        places = [
            (row, column, mirrored)
            for mirrored in (False, True)
            for row in range(17)
            for column in range(17)
            if (
                (source[:, ::-1] if mirrored else source)[
                    row : row + 16, column : column + 16
                ]
                == middle
            ).all()
        ]
        assert len(places) == 1


def test_the_same_steps():
    theirs, ours, weights = both("cnn")
    images, labels = torch.randn(2, 4, 3, 32, 32), torch.randint(CLASSES, (2, 4))
    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)
    params = weights()
    shapes = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros(IMAGE))
    averages = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes["batch_stats"])
    network = Network(
        {"params": params, "batch_stats": averages},
        optimizer.init(params),
        jnp.float32(0),
        jnp.int32(0),
    )
    step = jax.jit(lambda network, batch: train_step(ours, optimizer, 0, network, batch))
    assert training_step.steps_a_call() == 2
    for batch, classes in zip(images, labels, strict=True):
        pixels = batch.numpy().transpose(0, 2, 3, 1)
        before = network.loss
        network = step(network, Batch(pixels, classes.numpy().astype("i4")))
    last_loss = torch_networks.steps(theirs, images, labels, torch.channels_last)()
    np.testing.assert_allclose(network.loss - before, last_loss, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        network.variables["params"],
        weights(),
    )
