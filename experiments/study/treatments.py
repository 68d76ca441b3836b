"""What is done to the conv kernels, before training or in it, in several strengths.

An initialization's strength is its number of steps, unless it says otherwise; that of a
regularizer is the factor of its loss.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import optax

import convsim_jax as cs
from convsim_jax import orthogonality
from experiments import methods
from experiments.methods import PAPER, SCALE_FREE, Objective, Pairs, with_norms_of
from experiments.study import penalties
from experiments.study.penalties import Penalty, add_gradient, of_layers

STEPS = (10.0, 30.0, 100.0, 300.0)
FACTORS = (0.25, 0.35, 0.5, 0.7)
MATCHED = Objective(channels="matched", normalize=True)


def unchanged(params: chex.ArrayTree, strength: float) -> chex.ArrayTree:
    """The random parameters."""
    return params


class Kind(Enum):
    """What a treatment is there for."""

    BASELINE = "baseline"
    SIMILARITY = "Convolutional Similarity"
    ORTHOGONALITY = "kernel orthogonality"
    CONTROL = "control"


class Treatment(NamedTuple):
    """One way to treat the conv kernels.

    Attributes:
        kind: see there.
        summary: a line for people.
        strengths: those that are tried, from the weakest to the strongest.
        initialize: `initialize(params, strength)` gives the parameters that training of
            one network starts from.
        regularize: `regularize(strength)` adds a gradient to the updates; the strength
            may be traced.
        decoupled: whether it comes after the optimizer's preconditioner.
        control: the treatment that changes the norms alone as this one does.
    """

    kind: Kind
    summary: str
    strengths: tuple[float, ...]
    initialize: Callable[[chex.ArrayTree, float], chex.ArrayTree] = unchanged
    regularize: Callable[[Any], optax.GradientTransformation] | None = None
    decoupled: bool = False
    control: str | None = None


def similarity_steps(
    params: chex.ArrayTree,
    steps: float,
    objective: Objective,
    pairs: Pairs = "all",
    preserve_norm: bool = False,
) -> chex.ArrayTree:
    """Parameters after steps down Convolutional Similarity."""
    return cs.minimize_similarity(
        params,
        int(steps),
        pairs=pairs,
        preserve_norm=preserve_norm,
        **objective._asdict(),
    )[0]


def penalty_steps(
    params: chex.ArrayTree, steps: float, penalty: Penalty
) -> chex.ArrayTree:
    """Parameters after steps down another penalty."""
    return penalties.minimize(penalty, params, int(steps))


def shrunk(params: chex.ArrayTree, steps: float) -> chex.ArrayTree:
    """Random kernels with the norms that steps down the paper's loss reach."""
    return with_norms_of(params, similarity_steps(params, steps, PAPER))


def then_shrunk(
    params: chex.ArrayTree,
    steps: float,
    initialize: Callable[[chex.ArrayTree, float], chex.ArrayTree],
    strength: float,
) -> chex.ArrayTree:
    """Kernels of another initialization, with the norms that the paper's loss reaches."""
    return with_norms_of(
        initialize(params, strength), similarity_steps(params, steps, PAPER)
    )


def scaled(
    params: chex.ArrayTree,
    factor: float,
    initialize: Callable[[chex.ArrayTree, float], chex.ArrayTree] = unchanged,
    strength: float = 0.0,
) -> chex.ArrayTree:
    """Kernels of another initialization times a factor."""
    params = initialize(params, strength)
    return jax.tree.map(lambda x: factor * x if x.ndim == 4 else x, params)


def without_mean(params: chex.ArrayTree, fraction: float) -> chex.ArrayTree:
    """Kernels less a fraction of each spatial filter's mean, with the norms they had."""

    def of_leaf(leaf: jax.Array) -> jax.Array:
        if leaf.ndim != 4 or leaf.shape[:2] == (1, 1):
            return leaf
        return leaf - fraction * leaf.mean((0, 1), keepdims=True)

    return with_norms_of(jax.tree.map(of_leaf, params), params)


def similarity(objective: Objective, pairs: Pairs = "all") -> Callable[..., Any]:
    """What adds the gradient of Convolutional Similarity."""
    adding = methods.similarity(objective)
    return lambda strength: adding(strength, pairs)


def penalty(of_kernel: Callable[[jax.Array], jax.Array]) -> Callable[..., Any]:
    """What adds the gradient of another penalty."""
    return partial(add_gradient, of_layers(of_kernel))


def chosen_decay(_: Any) -> optax.GradientTransformation:
    """Weight decay as it was chosen alone."""
    return methods.conv_decay(methods.DECAY)


def decades(first: float) -> tuple[float, ...]:
    """Four powers of ten."""
    return tuple(first * 10.0**power for power in range(4))


COSINE = of_layers(penalties.squared_cosine)
IMAGE_METRIC = of_layers(penalties.squared_cosine_on_images)

TREATMENTS: dict[str, Treatment] = {
    "none": Treatment(Kind.BASELINE, "the network as it is: the baseline", (0.0,)),
    # Before training.
    "paper-init": Treatment(
        Kind.SIMILARITY,
        "the paper's loss minimised before training, all pairs",
        STEPS,
        partial(similarity_steps, objective=PAPER),
        control="shrunk",
    ),
    "shrunk": Treatment(
        Kind.CONTROL,
        "random kernels scaled to the norms that paper-init reaches",
        STEPS,
        shrunk,
    ),
    "scale-free-init": Treatment(
        Kind.SIMILARITY,
        "the scale-free cross-channel loss minimised before training",
        STEPS,
        partial(similarity_steps, objective=SCALE_FREE),
    ),
    "scale-free-norm-init": Treatment(
        Kind.SIMILARITY,
        "scale-free-init, each output channel's norm kept",
        STEPS,
        partial(similarity_steps, objective=SCALE_FREE, preserve_norm=True),
    ),
    "matched-init": Treatment(
        Kind.SIMILARITY,
        "the scale-free loss of matched channels minimised before training",
        STEPS,
        partial(similarity_steps, objective=MATCHED),
    ),
    "scale-free-shrunk": Treatment(
        Kind.SIMILARITY,
        "100 steps of scale-free-init, then scaled to the norms of paper-init",
        STEPS,
        partial(
            then_shrunk,
            initialize=partial(similarity_steps, objective=SCALE_FREE),
            strength=100.0,
        ),
        control="shrunk",
    ),
    "scaled": Treatment(Kind.CONTROL, "random kernels times a factor", FACTORS, scaled),
    "scale-free-scaled": Treatment(
        Kind.SIMILARITY,
        "100 steps of scale-free-norm-init, then times a factor",
        FACTORS,
        partial(
            scaled,
            initialize=partial(
                similarity_steps, objective=SCALE_FREE, preserve_norm=True
            ),
            strength=100.0,
        ),
        control="scaled",
    ),
    "matched-shrunk": Treatment(
        Kind.SIMILARITY,
        "100 steps of matched-init, then scaled to the norms of paper-init",
        STEPS,
        partial(
            then_shrunk,
            initialize=partial(similarity_steps, objective=MATCHED),
            strength=100.0,
        ),
        control="shrunk",
    ),
    "cosine-shrunk": Treatment(
        Kind.ORTHOGONALITY,
        "100 steps of cosine-init, then scaled to the norms of paper-init",
        STEPS,
        partial(
            then_shrunk, initialize=partial(penalty_steps, penalty=COSINE), strength=100.0
        ),
        control="shrunk",
    ),
    "image-metric-shrunk": Treatment(
        Kind.CONTROL,
        "100 steps of image-metric-init, then scaled to the norms of paper-init",
        STEPS,
        partial(
            then_shrunk,
            initialize=partial(penalty_steps, penalty=IMAGE_METRIC),
            strength=100.0,
        ),
        control="shrunk",
    ),
    "zero-mean-shrunk": Treatment(
        Kind.CONTROL,
        "zero-mean of fraction 1, then scaled to the norms of paper-init",
        STEPS,
        partial(then_shrunk, initialize=without_mean, strength=1.0),
        control="shrunk",
    ),
    "paper-norm-init": Treatment(
        Kind.SIMILARITY,
        "the paper's loss minimised before training, each output channel's norm kept",
        STEPS,
        partial(similarity_steps, objective=PAPER, preserve_norm=True),
    ),
    "paper-adjacent-init": Treatment(
        Kind.SIMILARITY,
        "the paper's loss minimised before training, adjacent pairs, as its code has it",
        STEPS,
        partial(similarity_steps, objective=PAPER, pairs="adjacent"),
        control="shrunk",
    ),
    "zero-mean": Treatment(
        Kind.CONTROL,
        "a fraction of each spatial filter's mean taken away, the norm kept",
        (0.25, 0.5, 0.75, 1.0),
        without_mean,
    ),
    "image-metric-init": Treatment(
        Kind.CONTROL,
        "kernels made orthogonal in the metric of natural images",
        STEPS,
        partial(penalty_steps, penalty=IMAGE_METRIC),
    ),
    "cosine-init": Treatment(
        Kind.ORTHOGONALITY,
        "kernels made orthogonal",
        STEPS,
        partial(penalty_steps, penalty=COSINE),
    ),
    # In training.
    "paper-reg": Treatment(
        Kind.SIMILARITY,
        "the paper's loss added in training, all pairs",
        decades(1e-4),
        regularize=similarity(PAPER),
        control="decay",
    ),
    "scale-free-reg": Treatment(
        Kind.SIMILARITY,
        "the scale-free cross-channel loss added in training",
        decades(1e-2),
        regularize=similarity(SCALE_FREE),
    ),
    "matched-reg": Treatment(
        Kind.SIMILARITY,
        "the scale-free loss of matched channels added in training",
        decades(1e-2),
        regularize=similarity(MATCHED),
    ),
    "decay": Treatment(
        Kind.CONTROL,
        "weight decay of the conv kernels",
        decades(1e-3),
        regularize=methods.conv_decay,
    ),
    "scale-free-shrunk-decay": Treatment(
        Kind.SIMILARITY,
        "scale-free-shrunk of strength 30, then weight decay of the conv kernels",
        decades(1e-3),
        lambda params, _: TREATMENTS["scale-free-shrunk"].initialize(params, 30.0),
        methods.conv_decay,
        control="decay",
    ),
    "cosine-reg": Treatment(
        Kind.ORTHOGONALITY,
        "kernel cosine similarity, squared, added in training",
        decades(1e-1),
        regularize=penalty(penalties.squared_cosine),
    ),
    "so-reg": Treatment(
        Kind.ORTHOGONALITY,
        "soft orthogonality added in training",
        decades(1e-4),
        regularize=penalty(orthogonality.soft_orthogonality),
    ),
    "srip-reg": Treatment(
        Kind.ORTHOGONALITY,
        "spectral restricted isometry (SRIP) added in training",
        decades(1e-3),
        regularize=penalty(orthogonality.spectral_restricted_isometry),
    ),
    "ocnn-reg": Treatment(
        Kind.ORTHOGONALITY,
        "convolutional orthogonality (OCNN) added in training",
        decades(1e-4),
        regularize=penalty(orthogonality.convolutional_orthogonality),
    ),
    "paper-adjacent-reg": Treatment(
        Kind.SIMILARITY,
        "the paper's loss added in training, adjacent pairs, as its code has it",
        decades(1e-2),
        regularize=similarity(PAPER, "adjacent"),
        control="decay",
    ),
    "paper-decoupled-reg": Treatment(
        Kind.SIMILARITY,
        "the paper's loss added in training, decoupled from the momentum",
        decades(1e-4),
        regularize=similarity(PAPER),
        decoupled=True,
        control="decay",
    ),
    "scale-free-decoupled-reg": Treatment(
        Kind.SIMILARITY,
        "the scale-free cross-channel loss added in training, decoupled",
        decades(1e-1),
        regularize=similarity(SCALE_FREE),
        decoupled=True,
    ),
}
# Initializations that are tried once more with weight decay in training.
WITH_DECAY = (
    "shrunk",
    "scale-free-shrunk",
    "scale-free-norm-init",
    "cosine-init",
    "image-metric-init",
)


def with_decay(treatment: Treatment) -> Treatment:
    """The initialization, and then the weight decay that was chosen alone."""
    control = treatment.control
    return treatment._replace(
        summary=f"{treatment.summary}; then weight decay of {methods.DECAY:g}",
        regularize=chosen_decay,
        control="decay" if control is None else f"decay+{control}",
    )


TREATMENTS |= {f"decay+{name}": with_decay(TREATMENTS[name]) for name in WITH_DECAY}
