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
    """Numbers that may be traced, so that one program serves all of their values."""

    learning_rate: Any  # at the start
    strength: Any  # of the regularization
    decay: Any = None  # of the conv kernels, besides; None for none


def learning_rates(
    name: Literal["constant", "step", "cosine"],
    peak: float,
    milestones: tuple[int, ...],
    epochs: int,
    steps: int,
) -> optax.Schedule:
    """The learning rate at each step.

    `"step"` divides it by 10 at each milestone, as the paper does at epochs 100 and 150;
    `"cosine"` goes from `peak` to 0.

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
    one comes after the preconditioner. So does weight decay, but that of SGD. `schedule`
    is of the learning rate, as a fraction of that at the start.
    """
    coupled: list[optax.GradientTransformation] = []
    decoupled: list[optax.GradientTransformation] = []
    decays = coupled if name == "sgd" else decoupled

    def no_bias_or_scale(params: chex.ArrayTree) -> chex.ArrayTree:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    if weight_decay:
        decays.append(optax.add_decayed_weights(weight_decay, no_bias_or_scale))
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
