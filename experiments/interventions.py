"""Interventions: what is done to the conv kernels of a network, before training or in it.

A method, as commands and tables call it, is the name of one. Each is composed of an
initialization, with an amount, and of what is added in training, with a strength. A study
tunes one of the two.
"""

import difflib
from typing import Any, Literal, NamedTuple

import optax

import convsim_jax as cs
from experiments import losses
from experiments.initializations import (
    UNCHANGED,
    WHITENED,
    ZERO_MEAN,
    Initialization,
    minimizing,
    then_factor,
    then_norms_of_paper,
)
from experiments.losses import (
    LOSSES,
    SCALE_FREE,
    TITLES,
    Added,
    Decorrelation,
    Options,
    Similarity,
)

Role = Literal["baseline", "similarity", "orthogonality", "control"]
# The strength of weight decay that the study chose in batch-norm.
DECAY = 0.1
RATES_OF_MUON = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
OF_MAPS = (0.1, 0.3, 1.0, 3.0)


class Regularization(NamedTuple):
    """What is added in training.

    Attributes:
        loss: whose gradient is added to the updates.
        strength: by default.
        tried: strengths, from the weakest to the strongest.
        pairs: those of Convolutional Similarity; None: as the options say.
        decoupled: whether it comes after the optimizer's preconditioner.
    """

    loss: Added
    strength: float
    tried: tuple[float, ...]
    pairs: cs.Pairs | None = None
    decoupled: bool = False

    def add_gradient(
        self, strength: Any, options: Options
    ) -> optax.GradientTransformation:
        """Adds `strength`, which may be traced, times the loss's gradient."""
        if self.pairs is not None:
            options = options._replace(pairs=self.pairs)
        return self.loss.add_gradient(strength, options)


class Intervention(NamedTuple):
    """One way to treat the conv kernels.

    Attributes:
        role: what it is there for.
        summary: a line for people.
        before: what is done before training.
        during: what is added in training, if anything.
        tunes: the part that a study tunes; or its own learning rates.
        control: the intervention that changes the norms alone as this one does.
        optimizer: in place of the one that the options say.
        after: the method with whose tuned learning rate it begins; None: the baseline.
    """

    role: Role
    summary: str
    before: Initialization = UNCHANGED
    during: Regularization | None = None
    tunes: Literal["before", "during", "rate"] = "before"
    control: str | None = None
    optimizer: Literal["muon"] | None = None
    after: str | None = None

    @property
    def tried(self) -> tuple[float, ...]:
        """The values that a study tries; 0 alone where there is nothing to tune."""
        if self.tunes == "rate":
            return RATES_OF_MUON
        tuned = self.during if self.tunes == "during" else self.before
        return tuned.tried if tuned else ()

    @property
    def strength(self) -> float:
        """Of what is added in training; 0 where nothing is."""
        return self.during.strength if self.during else 0.0

    @property
    def takes(self) -> tuple[str, ...]:
        """The options of the command line that matter to it."""
        steps = ("steps",) if self.before.unit == "steps" and self.before.amount else ()
        takes = {*steps, *self.before.takes}
        if self.optimizer is None:
            takes |= {"optimizer", "momentum"}
        if self.during:
            takes.add("strength")
            if isinstance(self.during.loss, Similarity) and self.during.pairs is None:
                takes.add("pairs")
        return tuple(sorted(takes))

    def of_amount(self, amount: float) -> "Intervention":
        """The same with another amount before training."""
        return self._replace(before=self.before._replace(amount=amount))

    def of_steps(self, steps: int) -> "Intervention":
        """The same with another number of steps before training, if it takes any."""
        return self.of_amount(float(steps)) if "steps" in self.takes else self

    def of_strength(self, strength: Any) -> "Intervention":
        """The same with another strength in training; that may be traced."""
        if self.during is None:
            return self
        return self._replace(during=self.during._replace(strength=strength))

    def tuned(self, value: float) -> "Intervention":
        """The same with another value of what a study tunes, but for a learning rate."""
        if self.tunes == "rate":
            return self
        of_value = self.of_strength if self.tunes == "during" else self.of_amount
        return of_value(value)

    def then_decay(self) -> "Intervention":
        """The same initialization, and then the weight decay that was chosen alone."""
        return self._replace(
            summary=f"{self.summary}; then weight decay of {DECAY:g}",
            during=Regularization(losses.DECAY, DECAY, ()),
            control="decay" if self.control is None else f"decay+{self.control}",
        )


def initializing(
    loss: str, how: str = "", control: str | None = None, **fixed: Any
) -> Intervention:
    """A loss minimised before training, with some of its options fixed."""
    summary = f"{TITLES[loss]} minimised before training{how}"
    before = minimizing(LOSSES[loss], **fixed)
    return Intervention(role_of(loss), summary, before, control=control)


def regularizing(
    loss: str,
    weakest: float,
    strength: float,
    how: str = "",
    control: str | None = None,
    **options: Any,
) -> Intervention:
    """A loss added in training, tried in four powers of ten."""
    tried = tuple(weakest * 10.0**power for power in range(4))
    during = Regularization(LOSSES[loss], strength, tried, **options)
    summary = f"{TITLES[loss]} added in training{how}"
    return Intervention(role_of(loss), summary, UNCHANGED, during, "during", control)


def role_of(loss: str) -> Role:
    """What a loss is compared for."""
    if isinstance(LOSSES[loss], Similarity):
        return "similarity"
    return "control" if loss == "image-metric" else "orthogonality"


def shrunk(name: str) -> Intervention:
    """100 steps of an initialization, then the norms that the paper's loss reaches."""
    return INTERVENTIONS[name]._replace(
        summary=f"100 steps of {name}, then scaled to the norms of paper-init",
        before=then_norms_of_paper(INTERVENTIONS[name].before),
        control="shrunk",
    )


def decorrelating(
    how: str, loss: Added, before: Initialization = UNCHANGED
) -> Intervention:
    """What decorrelates the maps in training."""
    during = Regularization(loss, 1.0, OF_MAPS)
    return Intervention("similarity", how, before, during, "during")


KEPT = ", norms kept"
ADJACENT = ", of adjacent pairs as in its code"
DECOUPLED = ", decoupled from the preconditioner"
NORM_KEPT = minimizing(SCALE_FREE, preserve_norm=True)
INTERVENTIONS: dict[str, Intervention] = {
    "none": Intervention("baseline", "the network as it is: the baseline"),
    # Before training.
    "paper-init": initializing("paper", control="shrunk"),
    "paper-norm-init": initializing("paper", KEPT, preserve_norm=True),
    "paper-adjacent-init": initializing("paper", ADJACENT, "shrunk", pairs="adjacent"),
    "scale-free-init": initializing("scale-free"),
    "scale-free-norm-init": initializing("scale-free", KEPT, preserve_norm=True),
    "scale-free-scaled": Intervention(
        "similarity",
        "100 steps of scale-free-norm-init, then times a factor",
        then_factor(NORM_KEPT),
        control="scaled",
    ),
    "matched-init": initializing("matched"),
    "cosine-init": initializing("cosine"),
    "image-metric-init": initializing("image-metric"),
    "zero-mean": Intervention(
        "control",
        "a fraction of each spatial filter's mean taken away, the norm kept",
        ZERO_MEAN,
    ),
    "whitened": Intervention(
        "control",
        "kernels of the first layer whose maps of training images are uncorrelated",
        WHITENED,
    ),
    "shrunk": Intervention(
        "control",
        "random kernels scaled to the norms that paper-init reaches",
        then_norms_of_paper(UNCHANGED),
    ),
    "scaled": Intervention(
        "control", "random kernels times a factor", then_factor(UNCHANGED)
    ),
    # In training. The defaults of paper-reg and scale-free-reg are the largest of four
    # that left the accuracy on held-out digits as it was, in the first epochs too.
    "paper-reg": regularizing("paper", 1e-4, 1e-3, control="decay"),
    "paper-adjacent-reg": regularizing(
        "paper", 1e-2, 1e-1, ADJACENT, "decay", pairs="adjacent"
    ),
    "paper-decoupled-reg": regularizing(
        "paper", 1e-4, 1e-3, DECOUPLED, "decay", decoupled=True
    ),
    "scale-free-reg": regularizing("scale-free", 1e-2, 0.3),
    "scale-free-decoupled-reg": regularizing(
        "scale-free", 1e-1, 1.0, DECOUPLED, decoupled=True
    ),
    "matched-reg": regularizing("matched", 1e-2, 0.1),
    "cosine-reg": regularizing("cosine", 1e-1, 1.0),
    "so-reg": regularizing("so", 1e-4, 1e-3),
    "srip-reg": regularizing("srip", 1e-3, 1e-2),
    "ocnn-reg": regularizing("ocnn", 1e-4, 1e-3),
    "decorrelate": decorrelating(
        "the maps of each layer decorrelated in training", Decorrelation()
    ),
    "decorrelate-own": decorrelating(
        "decorrelate, with no gradient through a layer's input",
        Decorrelation(own=True),
    ),
    "decorrelate-every-4": decorrelating(
        "decorrelate in every fourth step, at four times the strength",
        Decorrelation(every=4),
    ),
    "decorrelate-every-16": decorrelating(
        "decorrelate in every sixteenth step, at 16 times the strength",
        Decorrelation(every=16),
    ),
    "decorrelate-whole-batch": decorrelating(
        "decorrelate, which sees all images of a batch in place of a quarter",
        Decorrelation(part=1),
    ),
    "decorrelate-eighth": decorrelating(
        "decorrelate, which sees an eighth of a batch", Decorrelation(part=8)
    ),
    "decorrelate-sixteenth": decorrelating(
        "decorrelate, which sees a sixteenth of a batch", Decorrelation(part=16)
    ),
    "decorrelate-rows": decorrelating(
        "decorrelate, which sees a quarter of the rows of all images",
        Decorrelation(rows=True),
    ),
    "decorrelate+scale-free-norm-init": decorrelating(
        "scale-free-norm-init, then decorrelate", Decorrelation(), NORM_KEPT
    ),
    "muon": Intervention(
        "orthogonality",
        "Muon in place of the optimizer: updates made orthogonal",
        tunes="rate",
        optimizer="muon",
    ),
    "decorrelate+muon": decorrelating(
        "decorrelate, with Muon in place of the optimizer", Decorrelation()
    )._replace(optimizer="muon", after="muon"),
    "decay": Intervention(
        "control",
        "weight decay of the conv kernels",
        during=Regularization(losses.DECAY, DECAY, (1e-3, 1e-2, 1e-1, 1.0)),
        tunes="during",
    ),
}
# The same kernels with the norms that are best for the paper's loss.
INTERVENTIONS |= {
    f"{name.removesuffix('-init')}-shrunk": shrunk(name)
    for name in (
        *("scale-free-init", "matched-init", "cosine-init", "image-metric-init"),
        "zero-mean",
    )
}
# Initializations that are tried once more with weight decay in training.
INTERVENTIONS |= {
    f"decay+{name}": INTERVENTIONS[name].then_decay()
    for name in (
        *("shrunk", "scale-free-shrunk", "scale-free-norm-init"),
        *("cosine-init", "image-metric-init"),
    )
}
INTERVENTIONS["scale-free-shrunk-decay"] = INTERVENTIONS["decay"]._replace(
    role="similarity",
    summary="scale-free-shrunk of 30 steps, then weight decay of the conv kernels",
    before=INTERVENTIONS["scale-free-shrunk"].before._replace(amount=30.0),
    control="decay",
)
# Names that run folders of earlier versions have.
EARLIER = {"control": "shrunk", "scale-free-decay": "decay+scale-free-norm-init"}


def intervention(name: str) -> Intervention:
    """The intervention of that name.

    Raises:
        ValueError: there is none.

    >>> intervention("control").summary
    'random kernels scaled to the norms that paper-init reaches'
    """
    if (found := INTERVENTIONS.get(EARLIER.get(name, name))) is None:
        (closest,) = difflib.get_close_matches(name, INTERVENTIONS, n=1, cutoff=0)
        raise ValueError(
            f"{name!r}; expected one of those that --help lists, such as {closest}"
        )
    return found
