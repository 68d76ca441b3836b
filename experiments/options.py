"""The options of a training run, and which values they may have."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import convsim_jax as cs
from experiments.command_line import (
    check_fraction,
    check_least,
    check_most,
    check_positive,
    flag,
    unset,
)
from experiments.interventions import intervention
from experiments.models import MODELS

# Options that earlier versions had not, with what they did: run folders do not name them.
LATER = {"optimizer": "sgd", "widths": ()}
# What no result depends on: where data and results are, and how they are handled.
PLACES = (
    "config",
    "widths_from",
    "data_dir",
    "download",
    "workers",
    "checkpoint_minutes",
    "distributed",
    "output",
)
DataDir = Annotated[
    Path | None, unset("PATH", "TFDS_DATA_DIR, else ~/tensorflow_datasets")
]


@dataclass(frozen=True)
class Config:
    """What to train, how, and where the results go.

    Attributes:
        config: A configuration of experiments/configs, or the folder of an earlier run,
            whose options are the defaults of all others.
        dataset: digits, a TFDS image classification dataset such as cifar10, a folder of
            images with one folder a class in train and test, or your own as
            package.module:function.
        train_size: Number of training images, drawn at random once for all seeds.
        validation: Fraction of the training images that is held out, and scored after
            each epoch. The network of the best epoch is scored on the test images.
        image_size: Stream the images from disk, cut to this size, instead of keeping all
            of them on the device: for sets that are large or of images of many sizes.
        augment: Crop and flip the training images at random.
        model: The network; another WideResNet as wrn<depth>-<factor>, such as wrn16-4; or
            one of your own as package.module:name.
        width: Multiplies the numbers of channels.
        widths: Channels of each conv layer instead, where they follow each other: cnn,
            cnn-plain, fast and vgg19.
        widths_from: Folder of a finished run: as many channels as it has effective maps.
        activation: Activation after each conv.
        dtype: What to compute in. Weights are float32.
        method: What is done to the conv kernels.
        strength: Factor of the loss that is added in training.
        steps: Steps before training, of Adam at 2e-3.
        preserve_norm: Keep the norm of each output channel's kernel in these steps.
        pairs: Pairs of kernels that the losses are summed over.
        seeds: Number of networks that are trained at once: seeds 0, 1 and so on. A seed
            fixes the random weights and, unless the images are streamed, their order.
        epochs: Number of epochs.
        batch_size: Images a step, over all devices. Those left over at the end of an
            epoch's order sit it out.
        optimizer: SGD with momentum, or AdamW, whose weight decay is decoupled.
        learning_rate: Learning rate at the start.
        schedule: constant; step: divided by 10 at each of the milestones; cosine: falls
            to 0 at the end.
        milestones: Epochs at which the schedule "step" divides the learning rate.
        momentum: Momentum of SGD.
        weight_decay: Factor of the weights that is added to their gradient; biases and
            normalization are left out.
        label_smoothing: Probability that is spread over all classes.
        data_dir: Folder of prepared TFDS datasets.
        download: Let TFDS download and prepare the dataset if it is not there, for which
            it needs TensorFlow.
        workers: Processes that decode streamed images; 0: none but this one.
        checkpoint_minutes: Minutes between checkpoints.
        distributed: Join the other processes of a run on several hosts, all started with
            the same command. TPU pods and Slurm say where they are; elsewhere the
            variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do.
        output: Run folder. One that holds part of a run with the same options goes on
            from there. Several hosts must share it.
    """

    config: str = "digits"
    dataset: str = "digits"
    train_size: Annotated[int | None, unset("INT", "all")] = None
    validation: float = 0.1
    image_size: Annotated[int | None, unset("INT", "as they are, on the device")] = None
    augment: bool = False
    model: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(MODELS) + "}")] = "cnn"
    width: float = 1.0
    widths: Annotated[tuple[int, ...], unset("INT ...", "as --width says")] = ()
    widths_from: Annotated[Path | None, unset("RUN", "none")] = None
    activation: Literal["relu", "elu", "gelu"] = "relu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    method: Annotated[str, tyro.conf.arg(metavar="METHOD")] = "none"
    strength: Annotated[float | None, unset("FLOAT", "the method's own")] = None
    steps: int = 100
    preserve_norm: bool = False
    pairs: cs.Pairs = "all"
    seeds: int = 1
    epochs: int = 15
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.05
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    milestones: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...")] = (100, 150)
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    data_dir: DataDir = None
    download: bool = False
    workers: int = 2
    checkpoint_minutes: float = 5.0
    distributed: bool = False
    output: Annotated[Path | None, unset("PATH", "runs/<config>-<method>-<time>")] = None

    def check(self) -> None:
        """Raises a ValueError that names the first option out of range."""
        option, methods = self.methods_option()
        try:
            takes = {name for each in methods for name in intervention(each).takes}
        except ValueError as error:
            raise ValueError(f"{option} is {error}") from None
        check_least(self, steps=0, seeds=1, epochs=1, batch_size=1, image_size=8)
        check_least(self, workers=0, checkpoint_minutes=0, strength=0, weight_decay=0)
        for name in ("steps", "strength", "preserve_norm", "optimizer", "momentum"):
            value, default = getattr(self, name), getattr(Config, name)
            if value != default and name not in takes:
                raise ValueError(
                    f"{flag(name)} is {value}; expected {default} with {option} "
                    f"{' '.join(methods)}, in which it has no effect"
                )
        check_least(self, width=0.01)
        if self.widths and (min(self.widths) < 1 or self.width != 1):
            raise ValueError(
                f"--widths is {' '.join(map(str, self.widths))} with --width "
                f"{self.width:g}; expected numbers of 1 or more, and no --width"
            )
        check_most(self, seeds=1000, width=100, image_size=10_000)
        check_positive(self, "learning_rate")
        check_fraction(self, "momentum", "label_smoothing", "validation")
        for name, of_use, where in (
            ("momentum", self.optimizer == "sgd", f"--optimizer {self.optimizer}"),
            ("workers", self.image_size is not None, "images that are on the device"),
        ):
            value, default = getattr(self, name), getattr(type(self), name)
            if value != default and not of_use:
                raise ValueError(
                    f"{flag(name)} is {value}; expected {default} with {where}, where it "
                    "has no effect"
                )
        if self.distributed and self.output is None:
            raise ValueError(
                "--distributed is given without --output; expected a folder that all "
                "processes share"
            )
        if list(self.milestones) != sorted({m for m in self.milestones if m > 0}):
            given = " ".join(map(str, self.milestones))
            raise ValueError(
                f"--milestones is {given!r}; expected epochs, 1 or more, in rising order"
            )

    def methods_option(self) -> tuple[str, tuple[str, ...]]:
        """The option that names methods, and what it names."""
        return "--method", (self.method,)

    def warnings(self) -> list[str]:
        """What is allowed, and may not be what was meant."""
        milestones = f"--milestones {' '.join(map(str, self.milestones))}"
        if self.schedule == "step" and max(self.milestones, default=0) >= self.epochs:
            return [f"{milestones}: not divided after the last epoch, {self.epochs}"]
        if self.schedule != "step" and self.milestones != Config.milestones:
            return [f"{milestones}: no effect with --schedule {self.schedule}"]
        return []

    def options(self) -> dict[str, Any]:
        """All that the results depend on."""
        options = dataclasses.asdict(self)
        for name in PLACES:
            del options[name]
        for name, earlier in LATER.items():
            if options[name] == earlier:
                del options[name]
        if self.dataset != "digits" and Path(self.dataset, "train").is_dir():
            # So it is the same from wherever it is repeated.
            options["dataset"] = str(Path(self.dataset).resolve())
        return options
