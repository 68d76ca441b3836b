"""The options of a run, and which values they may have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.command_line import check_fraction, check_least, check_positive, unset
from experiments.methods import METHODS, Pairs
from experiments.models import MODELS
from experiments.options import CacheDir, DataDir

STRENGTHS = ", ".join(
    f"{method.strength:g} for {name}"
    for name, method in METHODS.items()
    if method.regularizer is not None
)


@dataclass(frozen=True)
class Config:
    """What to train, how, and where the results go.

    Attributes:
        dataset: digits, or a TFDS image classification dataset such as cifar10.
        model: cnn: three 3x3 convs with batch normalisation and max pooling. cnn-plain:
            the same without batch normalisation.
        methods: What to compare, of the methods above.
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
        data_dir: Folder of prepared TFDS datasets.
        cache_dir: Folder of decoded images.
        download: Let TFDS download and prepare the dataset if it is not there, for which
            it needs TensorFlow.
        output: Run folder. One that holds part of a run with the same options goes on
            from there.
    """

    dataset: str = "digits"
    model: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(MODELS) + "}")] = "cnn"
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD ...")] = tuple(
        METHODS
    )
    strength: Annotated[float | None, unset("FLOAT", STRENGTHS)] = None
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
    data_dir: DataDir = None
    cache_dir: CacheDir = None
    download: bool = False
    output: Annotated[Path | None, unset("PATH", "runs/<dataset>-<model>-<time>")] = None

    def check(self) -> None:
        """Raises a ValueError that names the first option out of range."""
        for name, chosen, known in (
            ("model", [self.model], MODELS),
            ("methods", self.methods, METHODS),
        ):
            unknown = [choice for choice in chosen if choice not in known]
            if unknown:
                raise ValueError(
                    f"--{name} is {unknown[0]!r}; expected {', '.join(known)}"
                )
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                f"--methods is {' '.join(self.methods)!r}; expected names, each once"
            )
        check_least(self, strength=0, steps=0, seeds=1, epochs=1, batch_size=1)
        check_positive(self, "learning_rate", "width")
        check_fraction(self, "momentum", "validation")
