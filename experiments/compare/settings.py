"""Where methods are compared: images, a network, and how it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.interventions import INTERVENTIONS, Intervention
from experiments.options import Config

ALL = "all"  # the settings that fit a device
RECIPE = "decay+scale-free-norm-init"
# What chooses and what is reported has no seed in common.
TUNED_FROM, SEEDS_FROM = 5, 10


def names(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


EVERY = tuple(INTERVENTIONS)
DEMO = names(
    """none shrunk decay paper-init paper-reg scale-free-init scale-free-scaled
    scale-free-reg decorrelate decay+scale-free-norm-init"""
)
MAIN = names(
    """none paper-init shrunk scale-free-init scale-free-shrunk scaled scale-free-scaled
    paper-reg decay scale-free-shrunk-decay scale-free-reg decay+shrunk
    decay+scale-free-shrunk decay+scale-free-norm-init"""
)
REGULARIZERS = names(
    """none paper-reg decay paper-decoupled-reg scale-free-reg scale-free-decoupled-reg
    decay+scale-free-norm-init decay+cosine-init"""
)
BEYOND_DECAY = names(
    """decay decorrelate scale-free-norm-init muon paper-reg
    decorrelate+scale-free-norm-init"""
)
# Where a trial takes minutes: three values of each of them.
TRIED = {
    "decorrelate": (0.1, 0.3, 1.0),
    "scale-free-norm-init": (30.0, 100.0, 300.0),
    "muon": (0.01, 0.02, 0.04),
    "paper-reg": (1e-3, 1e-2, 1e-1),
    "decorrelate+scale-free-norm-init": (0.1, 0.3, 1.0),
    "whitened": (1e-4, 1e-3, 1e-2),
}
# Settings that differ in the width of the network alone, the narrowest first; by the plot
# that shows them.
BY_WIDTH = {
    "sizes": ("quarter-width", "batch-norm", "full-width"),
    "sizes-decayed": (
        *("decayed-effective", "decayed-quarter", "decayed-decorrelated"),
        *("decayed", "decayed-full"),
    ),
}
# Options of `experiments.train` that a setting fixes.
OPTIONS = names(
    """dataset train_size validation augment model width activation dtype epochs
    batch_size optimizer schedule milestones momentum weight_decay label_smoothing"""
)


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Of its options, method and seeds are not looked at; steps, strength and learning rate
    only where they are fixed, which is where no seeds tune.
    """

    summary: str
    config: Config
    learning_rates: tuple[float, ...] = ()  # rising
    methods: tuple[str, ...] = EVERY
    # Decays of the conv kernels, which the baseline tries at the middle learning rate.
    # What it chooses, all others have besides. None: the baseline does not decay.
    decays: tuple[float, ...] = ()
    # What others try in place of their own values, and then at the baseline's rate alone.
    tried: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    tuned: int = 2  # seeds of each trial that chooses
    seeds: int = 10  # of the result
    fewer: Mapping[str, int] = field(default_factory=dict)  # seeds, of some methods
    first_seed: int = SEEDS_FROM
    alone: bool = False  # whether seeds are trained one by one: each takes minutes
    whole: bool = False  # whether the result is trained on the validation images too
    like: str | None = None  # the setting whose choice of strengths is taken
    measured: int = 64  # training images that feature maps are measured on
    needs_gpu: bool = False
    usual: bool = True  # whether "all" means it too: what it needs is there

    @property
    def fixed(self) -> bool:
        """Whether strengths and learning rate are given, not chosen."""
        return not self.tuned

    @property
    def followed(self) -> bool:
        """Whether curves are of validation images; else they are of the test images."""
        return bool(self.config.validation) and not self.whole

    @property
    def baseline(self) -> str:
        """What all others are compared with."""
        return "decay" if self.decays else "none"

    def seeds_of(self, split: str, method: str) -> range:
        """The seeds of a trial."""
        if self.tuned and split == "validation":
            return range(TUNED_FROM, TUNED_FROM + self.tuned)
        many = self.fewer.get(method, self.seeds)
        return range(self.first_seed, self.first_seed + many)

    def intervention(self, name: str, value: float | None = None) -> Intervention:
        """The method of that name, with a value of what is tuned."""
        found = INTERVENTIONS[name]
        if value is not None and not self.fixed:
            return found.tuned(value)
        found = found.of_steps(self.config.steps)
        strength = self.config.strength
        return found if strength is None else found.of_strength(strength)

    def options(self) -> dict[str, Any]:
        """All that its results have in common, and no trial says of itself."""
        options = {name: getattr(self.config, name) for name in OPTIONS}
        options |= {"tuned": self.tuned, "seeds": self.seeds}
        later = [(self.config, "widths"), (self, "whole"), (self, "measured")]
        for of, name in later:  # which results of earlier versions do not name
            if (value := getattr(of, name)) != getattr(type(of), name):
                options[name] = value
        return options


# All 50,000 images, of which the default holds out a tenth; and 5,000 of them.
CIFAR_AUGMENTED = Config(config="", dataset="cifar10", augment=True)
CIFAR = Config(config="", dataset="cifar10", train_size=5000, width=0.5, epochs=8)
DIGITS = Config(config="", dataset="digits", width=0.5, epochs=15, batch_size=32)
RATES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04)
WIDE_RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)


def _of_widths(*widths: int) -> Config:
    """CIFAR with a network of other numbers of channels."""
    return replace(CIFAR, width=1.0, widths=widths)


SETTINGS: dict[str, Setting] = {
    "batch-norm": Setting(
        "small CNN of half width, batch normalization, 5,000 CIFAR-10 images",
        CIFAR,
        RATES,
    ),
    "plain": Setting(
        "the same network without batch normalization",
        replace(CIFAR, model="cnn-plain"),
        WIDE_RATES,
    ),
    "quarter-width": Setting(
        "batch-norm at half its width, with strengths as they were chosen there",
        replace(CIFAR, width=0.25),
        RATES,
        MAIN,
        like="batch-norm",
    ),
    "full-width": Setting(
        "batch-norm at twice its width, with strengths as they were chosen there",
        replace(CIFAR, width=1.0),
        RATES,
        MAIN,
        seeds=5,  # each takes four times as long as there
        like="batch-norm",
    ),
    "digits": Setting(
        "another set of images, with the strengths of batch-norm",
        DIGITS,
        WIDE_RATES,
        MAIN,
        like="batch-norm",
    ),
    "digits-plain": Setting(
        "another set of images, with the strengths of plain",
        replace(DIGITS, model="cnn-plain"),
        WIDE_RATES,
        MAIN,
        like="plain",
    ),
    "no-momentum": Setting(
        "batch-norm, trained by SGD without momentum",
        replace(CIFAR, momentum=0.0),
        (0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
        # Without momentum, coupled and decoupled are the same.
        tuple(name for name in REGULARIZERS if "decoupled" not in name),
    ),
    "adamw": Setting(
        "batch-norm, trained by AdamW",
        replace(CIFAR, weight_decay=1e-2, optimizer="adamw"),
        (0.002, 0.003, 0.004, 0.006, 0.008, 0.012),
        REGULARIZERS,
    ),
    # Five methods, the loss in few steps and of more and of fewer images, were written
    # before any of their scores: what they cost is known, what they gain not. So was
    # decorrelate+muon, for whoever trains with Muon: is there something left to gain? And
    # the last, once a part of the rows was found to cost a TPU much less than as many
    # images.
    "decayed": Setting(
        "batch-norm beyond a weight decay of the convs that is tuned first",
        CIFAR,
        (0.005, 0.01, 0.02),
        names(
            """decay decorrelate scale-free-norm-init muon decorrelate-own
            decorrelate+scale-free-norm-init paper-reg decorrelate-every-4
            decorrelate-every-16 decorrelate-whole-batch decorrelate-eighth
            decorrelate-sixteenth decorrelate+muon decorrelate-rows"""
        ),
        decays=(0.01, 0.03, 0.1, 0.3),
    ),
    # Written before any of its scores. One seed a trial: the baseline tries four decays
    # at the middle learning rate, then the best at the other two; each of the others
    # tries three values of its own, at what the baseline chose. Then 10 seeds of the
    # first four and 5 of the last two, in turn, are trained on all 50,000 images. What
    # counts is the accuracy less that of the tuned decay, seed by seed.
    "cifar10": Setting(
        "the small CNN on all of CIFAR-10, cropped and flipped, beyond a tuned decay",
        replace(CIFAR_AUGMENTED, epochs=15, batch_size=128),
        (0.01, 0.03, 0.1),
        BEYOND_DECAY,
        decays=(0.001, 0.003, 0.01, 0.03),
        tried={name: TRIED[name] for name in BEYOND_DECAY[1:]},
        tuned=1,
        fewer={"paper-reg": 5, "decorrelate+scale-free-norm-init": 5},
        alone=True,
        whole=True,
        measured=256,
    ),
    # Written before any of its scores. In the manner of arXiv 2404.00498, at half the
    # width. One seed a trial: the baseline tries four decays at the middle learning
    # rate, then the best at the other two; each of the others three values of its own.
    # Then 5 seeds of each on all 50,000 images: what counts is the accuracy less that of
    # the tuned decay, seed by seed.
    "fast": Setting(
        "a network that learns fast, and its whitened first layer, beyond a tuned decay",
        replace(
            CIFAR_AUGMENTED,
            model="fast",
            width=0.5,
            activation="gelu",
            epochs=8,
            batch_size=256,
            label_smoothing=0.2,
        ),
        (0.05, 0.1, 0.2),
        names("decay decorrelate whitened"),
        decays=(0.001, 0.003, 0.01, 0.03),
        tried={name: TRIED[name] for name in ("decorrelate", "whitened")},
        tuned=1,
        seeds=5,
        alone=True,
        whole=True,
        measured=256,
    ),
    "resnet18": Setting(
        "ResNet-18 on all of CIFAR-10, cropped and flipped, for a GPU",
        replace(
            CIFAR_AUGMENTED,
            model="resnet18",
            dtype="bfloat16",
            epochs=16,
            batch_size=512,
            label_smoothing=0.1,
        ),
        (0.1, 0.2, 0.4),
        BEYOND_DECAY,
        decays=(2e-4, 5e-4, 1e-3, 2e-3),
        tried={name: TRIED[name] for name in BEYOND_DECAY[1:]},
        tuned=1,
        seeds=5,
        alone=True,
        whole=True,
        needs_gpu=True,
    ),
}
# At other widths, with the strengths of decayed: as many channels as its networks have
# effective maps after training, rounded up, of `decay` and of `decorrelate`; and alike.
for name, summary, config in (
    ("effective", "as wide as decay has effective maps", _of_widths(5, 11, 18)),
    ("decorrelated", "as wide as decorrelate has them", _of_widths(8, 19, 28)),
    ("quarter", "at half the width", replace(CIFAR, width=0.25)),
    ("full", "at twice the width", replace(CIFAR, width=1.0)),
):
    SETTINGS[f"decayed-{name}"] = replace(
        SETTINGS["decayed"],
        summary=f"decayed {summary}",
        config=config,
        methods=("decay", "decorrelate"),
        seeds=5 if name == "full" else 10,
        like="decayed",
    )
# Tuned anew. First it took its strengths from decayed, and at strength 1 and the rate of
# `decay` `decorrelate` did harm: that it has trials of its own was written after those
# scores, and before any of these.
SETTINGS["decayed-longer"] = replace(
    SETTINGS["decayed"],
    summary="decayed with three times the steps, tuned there",
    config=replace(CIFAR, epochs=24),
    methods=("decay", "decorrelate"),
)
# The same protocol on other images, where they are prepared.
SETTINGS["cifar100"] = replace(
    SETTINGS["cifar10"],
    summary="cifar10 on CIFAR-100",
    config=replace(SETTINGS["cifar10"].config, dataset="cifar100"),
    usual=False,
)
