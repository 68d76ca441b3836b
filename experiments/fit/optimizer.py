"""The optimizer: a preconditioner on a schedule, weight decay, and a regularization."""

from typing import Any, Literal, NamedTuple

import chex
import jax
import optax

from experiments.interventions import Regularization
from experiments.losses import Options


class Factors(NamedTuple):
    """Numbers that may be traced, so that one program serves all of their values.

    Attributes:
        learning_rate: at the start.
        strength: of the regularization.
    """

    learning_rate: Any
    strength: Any


def learning_rates(
    name: Literal["constant", "step", "cosine"],
    peak: float,
    milestones: tuple[int, ...],
    epochs: int,
    steps: int,
) -> optax.Schedule:
    """The learning rate at each step.

    Args:
        name: `"constant"`; `"step"`: divided by 10 at each milestone, as the paper does
            at epochs 100 and 150; `"cosine"`: from `peak` to 0.
        peak: at the start.
        milestones: epochs.
        epochs: of the whole training.
        steps: of an epoch.

    >>> rate = learning_rates("step", 0.1, (100, 150), 200, 390)
    >>> [round(float(rate(390 * epoch)), 6) for epoch in (0, 99, 101, 151)]
    [0.1, 0.1, 0.01, 0.001]
    """
    if name == "cosine":
        return optax.cosine_decay_schedule(peak, epochs * steps)
    if name == "step":
        return optax.piecewise_constant_schedule(
            peak, {epoch * steps: 0.1 for epoch in milestones}
        )
    return optax.constant_schedule(peak)


def optimizer(
    name: Literal["sgd", "adamw"],
    schedule: optax.Schedule,
    momentum: float,
    weight_decay: float,
    regularization: Regularization | None,
    options: Options,
    factors: Factors,
) -> optax.GradientTransformation:
    """SGD with momentum or AdamW, with what is added in training.

    A coupled regularization comes first: the same as adding it to the loss. A decoupled
    one comes after the preconditioner. So does AdamW's weight decay; SGD's is coupled.

    Args:
        name: of the optimizer.
        schedule: of the learning rate, as a fraction of that at the start.
        momentum: of SGD.
        weight_decay: of all weights but norms and biases.
        regularization: of the conv kernels, if any.
        options: of Convolutional Similarity.
        factors: see there.
    """
    coupled: list[optax.GradientTransformation] = []
    decoupled: list[optax.GradientTransformation] = []
    if weight_decay:
        decay = optax.add_decayed_weights(weight_decay, is_weight)
        (coupled if name == "sgd" else decoupled).append(decay)
    if regularization is not None:
        added = regularization.add_gradient(factors.strength, options)
        if regularization.decoupled:
            decoupled.append(added)
        else:
            coupled.insert(0, added)
    if name == "adamw":
        preconditioner = optax.scale_by_adam()
    else:
        preconditioner = optax.trace(momentum) if momentum else optax.identity()
    descent = optax.scale_by_schedule(
        lambda count: -factors.learning_rate * schedule(count)
    )
    return optax.chain(*coupled, optax.chain(preconditioner, *decoupled, descent))


def is_weight(params: chex.ArrayTree) -> chex.ArrayTree:
    """Which leaves decay: kernels do, biases and the scales of norms do not."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
