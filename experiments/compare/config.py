"""The options of a comparison, and which values they may have."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments import options
from experiments.command_line import (
    check_fraction,
    check_least,
    check_positive,
    flag,
    unset,
)
from experiments.compare.settings import DEMO, EVERY, SETTINGS, Setting
from experiments.interventions import EARLIER, INTERVENTIONS
from experiments.losses import Pairs
from experiments.models import MODELS
from experiments.options import CacheDir, DataDir

RESULTS = Path("experiments", "results")
ALL = "all"
# Options of the comparison with tuned strengths, of both, and, the others, of the demo.
TUNED = ("settings", "minutes", "results")
BOTH = ("methods", "data_dir", "cache_dir", "download")
# What no result of the demo depends on.
NOT_OF_RESULTS = (*TUNED, "output", "data_dir", "cache_dir", "download")


@dataclass(frozen=True)
class Config:
    """What to compare, how, and where the results go.

    Attributes:
        settings: Settings to tune and to compare in, one after another, of those above;
            all: those that fit the device. They fix all options but the last ones.
        methods: What to compare, of the methods above.
        minutes: Time after which nothing new is trained, with --settings.
        results: Folder of the results, with --settings.
        dataset: digits, or a TFDS image classification dataset such as cifar10.
        model: cnn: three 3x3 convs with batch normalisation and max pooling. cnn-plain:
            the same without batch normalisation.
        strength: Factor of the loss that is added in training, for all methods that add
            one.
        steps: Steps of minimising a loss before training, of Adam at 2e-3.
        preserve_norm: Keep the norm of each output channel's kernel in these steps.
        pairs: Pairs of kernels that the losses are summed over. The paper's own code
            takes adjacent ones.
        seeds: Number of seeds: 0, 1 and so on. A seed fixes the random weights and the
            order of images.
        epochs: Number of epochs.
        train_size: Number of training images, drawn at random once for all seeds.
        batch_size: Images a step. Those left over at the end of an epoch's order sit it
            out.
        learning_rate: Learning rate of SGD at the start. It falls to 0 as a cosine.
        momentum: Momentum of SGD.
        width: Multiplies the numbers of channels.
        activation: Activation after each conv.
        validation: Fraction of the training images that is held out, and scored instead
            of the test images: for choosing options.
        output: Run folder. One that holds part of a run with the same options goes on
            from there.
        data_dir: Folder of prepared TFDS datasets.
        cache_dir: Folder of decoded images.
        download: Let TFDS download and prepare the dataset if it is not there, for which
            it needs TensorFlow.
    """

    settings: Annotated[
        tuple[str, ...] | None, unset("SETTING ...", "none: strengths are fixed")
    ] = None
    methods: Annotated[
        tuple[str, ...] | None,
        tyro.conf.arg(
            metavar="METHOD ...",
            aliases=["--treatments"],
            help_behavior_hint=f"(default: {' '.join(DEMO)}; all of a setting)",
        ),
    ] = None
    minutes: Annotated[float | None, unset("FLOAT", "no end")] = None
    results: Path = RESULTS
    dataset: str = "digits"
    model: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(MODELS) + "}")] = "cnn"
    strength: Annotated[float | None, unset("FLOAT", "each method's own")] = None
    steps: int = 100
    preserve_norm: bool = False
    pairs: Pairs = "all"
    seeds: int = 5
    epochs: int = 15
    train_size: Annotated[int | None, unset("INT", "all")] = None
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    width: float = 1.0
    activation: Literal["relu", "elu"] = "relu"
    validation: float = 0.0
    output: Annotated[Path | None, unset("PATH", "runs/<dataset>-<model>-<time>")] = None
    data_dir: DataDir = None
    cache_dir: CacheDir = None
    download: bool = False

    @property
    def chosen(self) -> tuple[str, ...]:
        """The interventions, by the names that they have now."""
        default = EVERY if self.settings else DEMO
        given = default if self.methods is None else self.methods
        return tuple(EARLIER.get(name, name) for name in given)

    def check(self) -> None:
        """Raises a ValueError that names the first option out of range."""
        known = {
            "settings": (self.settings, (ALL, *SETTINGS)),
            "methods": (self.chosen, INTERVENTIONS),
            "model": ((self.model,), MODELS),
        }
        for name, (chosen, names) in known.items():
            if chosen is not None:
                check_names(flag(name), chosen, names)
        of_other = (
            self.of_demo() if self.settings else [x for x in TUNED if x != "settings"]
        )
        for name in of_other:
            value = getattr(self, name)
            if value != getattr(Config, name):
                why = (
                    "which fixes it" if self.settings else "without which it does nothing"
                )
                expected = "no such option with" if self.settings else "it with"
                raise ValueError(
                    f"{flag(name)} is {value}; expected {expected} --settings, {why}"
                )
        check_least(self, minutes=0, strength=0, steps=0, seeds=1, epochs=1, batch_size=1)
        check_positive(self, "learning_rate", "width")
        check_fraction(self, "momentum", "validation")
        if self.settings:
            return
        takes = {name for each in self.chosen for name in INTERVENTIONS[each].takes}
        for name in ("strength", "steps", "preserve_norm", "pairs"):
            value = getattr(self, name)
            if value != getattr(Config, name) and name not in takes:
                raise ValueError(
                    f"{flag(name)} is {value}; expected no such option with --methods "
                    f"{' '.join(self.chosen)}, on which it has no effect"
                )

    def of_demo(self) -> list[str]:
        """Options that have no effect on a comparison with tuned strengths."""
        return [x.name for x in fields(self) if x.name not in (*TUNED, *BOTH)]

    def setting(self) -> Setting:
        """The comparison with fixed strengths that the options describe."""
        names = {x.name for x in fields(options.Config)} & set(self.of_demo())
        config = options.Config(
            config="", **{name: getattr(self, name) for name in names}
        )
        return Setting(
            f"{self.dataset}, {self.model}",
            config,
            methods=self.chosen,
            tuned=0,
            seeds=self.seeds,
            first_seed=0,
            measured=256,
        )


def check_names(option: str, chosen: tuple[str, ...], known: Collection[str]) -> None:
    """Raises a ValueError that names the first that is unknown."""
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"{option} is {unknown[0]!r}; expected {', '.join(known)}")
    if not chosen:
        raise ValueError(f"{option} is without a value; expected {', '.join(known)}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{option} is {' '.join(chosen)!r}; expected names, each once")
