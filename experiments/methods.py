"""What is compared: how each method initialises and regularises the conv kernels."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

import convsim_jax as cs

Pairs = Literal["all", "adjacent"]
# The factor of weight decay that the study's `decay` chose in batch-norm.
DECAY = 0.1
# Of a strength, which may be traced, and pairs: what adds a gradient to the updates.
Regularizer = Callable[[Any, Pairs], optax.GradientTransformation]


class Objective(NamedTuple):
    """Options of Convolutional Similarity, as `cs.total_similarity` takes them."""

    channels: Literal["matched", "cross"]
    normalize: bool


PAPER = Objective(channels="matched", normalize=False)
SCALE_FREE = Objective(channels="cross", normalize=True)


def unchanged(params: chex.ArrayTree, minimize: Callable) -> chex.ArrayTree:
    """The random parameters."""
    return params


class Method(NamedTuple):
    """One way to treat the conv kernels.

    Attributes:
        summary: one line for people.
        initialize: `initialize(params, minimize)` gives the parameters that training of
            one network starts from, `minimize(params, objective, preserve_norm=None)`
            being the steps down an objective, which keep each output channel's norm if
            told so; None is for what the options say.
        regularizer: what adds the gradient of a loss in training, if any.
        strength: the default factor of that loss.
    """

    summary: str
    initialize: Callable[[chex.ArrayTree, Callable], chex.ArrayTree] = unchanged
    regularizer: Regularizer | None = None
    strength: float = 0.0


def similarity(objective: Objective) -> Regularizer:
    """Adds the gradient of Convolutional Similarity."""

    def adding(strength: Any, pairs: Pairs) -> optax.GradientTransformation:
        return cs.add_convolutional_similarity(
            strength, pairs=pairs, **objective._asdict()
        )

    return adding


def conv_decay(strength: Any, pairs: Pairs = "all") -> optax.GradientTransformation:
    """Adds the conv kernels themselves: weight decay of no other weights."""
    return optax.add_decayed_weights(
        strength, lambda tree: jax.tree.map(lambda leaf: leaf.ndim == 4, tree)
    )


def with_norms_of(params: chex.ArrayTree, reference: chex.ArrayTree) -> chex.ArrayTree:
    """Each conv kernel of a network scaled to the norm of the one in `reference`."""

    def scale(leaf: jax.Array, other: jax.Array) -> jax.Array:
        if leaf.ndim != 4:  # (height, width, channels, kernels)
            return leaf
        return leaf * (jnp.linalg.vector_norm(other) / jnp.linalg.vector_norm(leaf))

    return jax.tree.map(scale, params, reference)


def taken_apart(params: chex.ArrayTree, minimize: Callable) -> chex.ArrayTree:
    """Scale-free steps that keep the norm of each output channel's kernel."""
    return minimize(params, SCALE_FREE, preserve_norm=True)


def halved(params: chex.ArrayTree) -> chex.ArrayTree:
    """Conv kernels of half the norm."""
    return jax.tree.map(lambda leaf: leaf / 2 if leaf.ndim == 4 else leaf, params)


# The default strengths are the largest of 0.0001, 0.001, 0.01 and of 0.1, 0.3, 1, 3 that
# leave the accuracy on held-out digits (option --validation) as it is, in the first
# epochs too. Both move what they regularise.
METHODS: dict[str, Method] = {
    "none": Method("the network as it is: the baseline"),
    "control": Method(
        "the random kernels scaled, layer by layer, to the norms that paper-init reaches",
        initialize=lambda params, minimize: with_norms_of(
            params, minimize(params, PAPER)
        ),
    ),
    "paper-init": Method(
        "the paper's loss minimised before training",
        initialize=lambda params, minimize: minimize(params, PAPER),
    ),
    "paper-reg": Method(
        "the paper's loss added in training", regularizer=similarity(PAPER), strength=1e-3
    ),
    "decay": Method(
        "weight decay of the conv kernels", regularizer=conv_decay, strength=DECAY
    ),
    "scale-free-init": Method(
        "the scale-free cross-channel loss minimised before training",
        initialize=lambda params, minimize: minimize(params, SCALE_FREE),
    ),
    "scale-free-scaled": Method(
        "scale-free-init with each output channel's norm kept, then all kernels halved",
        initialize=lambda params, minimize: halved(taken_apart(params, minimize)),
    ),
    "scale-free-reg": Method(
        "the scale-free cross-channel loss added in training",
        regularizer=similarity(SCALE_FREE),
        strength=0.3,
    ),
    "scale-free-decay": Method(
        "scale-free-init with each output channel's norm kept, then decay",
        initialize=taken_apart,
        regularizer=conv_decay,
        strength=DECAY,
    ),
}
