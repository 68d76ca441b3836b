"""The optimizer: a preconditioner on a schedule, weight decay, and a regularization."""

from typing import Any, Literal, NamedTuple

import chex
import jax
import optax
import optax.contrib

import convsim_jax as cs
from experiments.interventions import Regularization
from experiments.losses import Options


class Factors(NamedTuple):
    """Numbers that may be traced, so that one program serves all of their values.

    Attributes:
        learning_rate: at the start.
        strength: of the regularization.
        decay: of the conv kernels, besides; None for none.
    """

    learning_rate: Any
    strength: Any
    decay: Any = None


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
    name: Literal["sgd", "adamw", "muon"],
    schedule: optax.Schedule,
    momentum: float,
    weight_decay: float,
    regularization: Regularization | None,
    options: Options,
    factors: Factors,
) -> optax.GradientTransformation:
    """SGD with momentum, AdamW or Muon, with what is added in training.

    A coupled regularization comes first: the same as adding it to the loss. A decoupled
    one comes after the preconditioner. So does weight decay, but that of SGD.

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
    decays = coupled if name == "sgd" else decoupled
    if weight_decay:
        decays.append(optax.add_decayed_weights(weight_decay, is_weight))
    if factors.decay is not None:
        decays.append(optax.add_decayed_weights(factors.decay, cs.conv_mask))
    if regularization is not None:
        added = regularization.add_gradient(factors.strength, options)
        if regularization.decoupled:
            decoupled.append(added)
        else:
            coupled.insert(0, added)
    if name == "adamw":
        preconditioner = optax.scale_by_adam()
    elif name == "muon":
        orthogonal = optax.contrib.muon(1.0, muon_weight_dimension_numbers=as_matrices)
        preconditioner = optax.chain(orthogonal, optax.scale(-1.0))
    else:
        preconditioner = optax.trace(momentum) if momentum else optax.identity()
    descent = optax.scale_by_schedule(
        lambda count: -factors.learning_rate * schedule(count)
    )
    return optax.chain(*coupled, optax.chain(preconditioner, *decoupled, descent))


def as_matrices(params: chex.ArrayTree) -> chex.ArrayTree:
    """The axes that Muon sums over, and those of the output; None where it is Adam."""

    def axes(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        *inputs, output = range(leaf.ndim)
        if not inputs:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(inputs), (output,))

    return jax.tree.map(axes, params)


def is_weight(params: chex.ArrayTree) -> chex.ArrayTree:
    """Which leaves decay: kernels do, biases and the scales of norms do not."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
