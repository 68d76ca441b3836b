"""Takes a trained network out of a run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import convsim_jax as cs
from experiments.configs import configuration
from experiments.fit.step import Variables
from experiments.models import build
from experiments.record import write_kernels
from experiments.run_folder import read_json
from experiments.train import checkpoints


def load_run(folder: Path, seed: int = 0) -> tuple[Any, Variables]:
    """The network that a run chose, or the best so far of one that is not finished.

    `model.apply(variables, images)` are the logits of float images that are normalised as
    those of the run were: by what its `config.json` has as `images_normalised_by`.

    Args:
        folder: the run's.
        seed: whose network.

    Raises:
        ValueError: there is no such run or seed, or its last checkpoint is damaged.
    """
    found = [path for path in folder.glob("checkpoints/*") if path.name.isdigit()]
    if not found:
        raise ValueError(f"{folder} holds no checkpoints; expected a run folder")
    config = configuration(str(folder / "config.json"))
    if not 0 <= seed < config.seeds:
        raise ValueError(f"seed is {seed}; expected 0 to {config.seeds - 1}, of {folder}")
    last = max(found, key=lambda path: int(path.name))
    if checkpoints.is_damaged(last):
        raise ValueError(
            f"{last} is damaged; the command of the run, given again with --output "
            f"{folder}, goes on from the one before"
        )
    _, chosen = checkpoints.load(last)
    variables = jax.tree.map(lambda leaf: leaf[seed], chosen["variables"])
    # Runs of before it was noted what the data is are of networks of this project.
    data = read_json(folder / "config.json").get("settled", {}).get("dataset")
    if data is None:
        classes, channels = variables["params"]["Dense_0"]["bias"].size, 3
    else:
        classes, channels = len(data["class_names"]), data["shape"][-1]
    model = build(
        config.model,
        classes=classes,
        channels=channels,
        width=config.width,
        activation=config.activation,
        dtype=jnp.dtype(config.dtype),
    )
    return model, variables


def remake_kernels(
    folder: Path, start: Mapping[str, Any], layers: cs.ConvLayers | None = None
) -> None:
    """Writes the `kernels.npz` of a finished run again.

    Args:
        folder: the run's.
        start: the first seed's kernels before training, by path.
        layers: what the network does with its kernels; None: plain convolutions.

    Raises:
        ValueError: its last checkpoint is damaged.
        OSError: it cannot be written.
    """
    _, variables = load_run(folder)
    write_kernels(
        folder, start=start, end=cs.conv_kernels(variables["params"], layers=layers)
    )
