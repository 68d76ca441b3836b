"""SGD with momentum, on a schedule, with weight decay and a regularizer before it."""

from typing import Any, Literal

import chex
import jax
import optax

from experiments.methods import Pairs, Regularizer


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
    rates: optax.Schedule,
    momentum: float,
    weight_decay: float,
    regularizer: Regularizer | None,
    strength: Any,
    pairs: Pairs,
) -> optax.GradientTransformation:
    """SGD with momentum on the loss, plus a regularizer, plus weight decay.

    Both terms come before the momentum: the same as adding them to the loss. `strength`
    may be traced, so that one program serves all of them.
    """
    terms = []
    if regularizer is not None:
        terms.append(regularizer(strength, pairs))
    if weight_decay:
        terms.append(optax.add_decayed_weights(weight_decay, is_weight))
    return optax.chain(*terms, optax.sgd(rates, momentum or None))


def is_weight(params: chex.ArrayTree) -> chex.ArrayTree:
    """Which leaves decay: kernels do, biases and the scales of norms do not."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
