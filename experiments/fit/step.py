"""A step of one network's training, and its scoring: pure functions of arrays."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

import convsim_jax as cs
from experiments.losses import Decorrelation

Variables = dict[str, chex.ArrayTree]
# Of confidence, as the expected calibration error is usually computed.
BINS = 15


class Network(NamedTuple):
    """A network in training; with a leading axis on every array, one network a seed."""

    # parameters, and the running averages of batch normalisation if any
    variables: Variables
    optimizer: optax.OptState  # state of the optimizer
    loss: jax.Array  # of this epoch's steps so far, summed
    # number of this epoch's images so far that were classified correctly
    right: jax.Array


class Batch(NamedTuple):
    """Normalised images `(n, height, width, channels)`, float32, and labels `(n,)`."""

    images: jax.Array
    labels: jax.Array


def train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    label_smoothing: float,
    network: Network,
    batch: Batch,
    key: jax.Array | None = None,
    of_maps: Decorrelation | None = None,
    strength: Any = 0.0,
    number: Any = 0,
) -> Network:
    """The network after a step down the mean loss of a batch.

    `key` is of random layers, such as dropout. The loss of the maps is added with the
    factor `strength`, but not counted in the loss; `number`, the step's, tells whether
    it is this one's turn.
    """
    params = network.variables["params"]
    averages = {k: v for k, v in network.variables.items() if k != "params"}

    def apply(params: chex.ArrayTree) -> Any:
        return model.apply(
            {"params": params, **averages},
            batch.images,
            train=True,
            mutable=list(averages),
            rngs=key,
        )

    def loss_of(
        of_maps: Decorrelation | None, params: chex.ArrayTree
    ) -> tuple[jax.Array, Any]:
        added: Any = 0.0
        if of_maps is None:
            logits, updated = apply(params)
        else:
            with_maps = cs.with_feature_maps(apply, stop_gradient=of_maps.own)
            (logits, updated), maps = with_maps(params)
            added = strength * of_maps.every * of_maps.of_maps(maps)
        targets = jax.nn.one_hot(batch.labels, logits.shape[-1], dtype=logits.dtype)
        if label_smoothing:
            targets = optax.smooth_labels(targets, label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss + added, (loss, dict(updated), right(logits, batch.labels))

    gradient_of = jax.value_and_grad(loss_of, argnums=1, has_aux=True)
    if of_maps is None or of_maps.every == 1:
        found = gradient_of(of_maps, params)
    else:
        branches = partial(gradient_of, of_maps), partial(gradient_of, None)
        found = jax.lax.cond(number % of_maps.every == 0, *branches, params)
    (_, (loss, averages, correct)), gradient = found
    updates, state = optimizer.update(gradient, network.optimizer, params)
    return Network(
        variables={"params": optax.apply_updates(params, updates), **averages},
        optimizer=state,
        loss=network.loss + loss,
        right=network.right + correct,
    )


def judge(model: Any, variables: Variables, batch: Batch) -> jax.Array:
    """How sure a network is of images, in evaluation mode, and how often it is right.

    Labels of -1 are no images. Confidence is the probability of the class that is
    guessed, and divided into `BINS` of equal width.

    Returns:
        Of each bin the number of images, how many are classified correctly, and the sum
        of the confidences, `(3, BINS)`.
    """
    logits = jnp.asarray(model.apply(variables, batch.images), jnp.float32)
    confidence = jax.nn.softmax(logits).max(axis=-1)
    place = jnp.minimum((confidence * BINS).astype(jnp.int32), BINS - 1)
    real = (batch.labels >= 0).astype(confidence.dtype)
    hit = (logits.argmax(axis=-1) == batch.labels).astype(confidence.dtype)
    rows = jnp.stack([real, hit, real * confidence])
    inside = place[None, None] == jnp.arange(BINS)[None, :, None]
    return jnp.where(inside, rows[:, None], 0).sum(-1)


def right(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many of the largest logits are those of the labels.

    >>> print(right(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([1, 1])))
    1
    """
    return (logits.argmax(axis=-1) == labels).sum(dtype=jnp.int32)


def with_averages_of(model: Any, variables: Variables, images: jax.Array) -> Variables:
    """A network with running averages that are right for `images`.

    As Flax makes them, they are 0 and 1 whatever the weights, and what a network does
    before training could not be compared with what it does after. A model without the
    attribute `momentum` of its running averages keeps those that it has.
    """
    collections = [name for name in variables if name != "params"]
    if not collections or not hasattr(model, "momentum"):
        return variables
    follow = model.clone(momentum=0.0)
    _, averages = follow.apply(variables, images, train=True, mutable=collections)
    return {**variables, **averages}
