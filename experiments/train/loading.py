"""Takes a trained network out of a run folder."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.configs import configuration
from experiments.fit.step import Variables
from experiments.models import build
from experiments.run_folder import read_json
from experiments.train.checkpoints import checksums


def load_run(folder: Path, seed: int = 0) -> tuple[nn.Module, Variables]:
    """The network that a run chose, or the best so far of one that is not finished.

    `model.apply(variables, images)` are the logits of float images that are normalised as
    those of the run were: by what its `config.json` has as `images_normalised_by`.

    Args:
        folder: the run's.
        seed: whose network.

    Raises:
        ValueError: there is no such run or seed, or its last checkpoint is damaged.
    """
    written = folder / "checkpoints.json"
    if not written.exists():
        raise ValueError(f"{folder} holds no checkpoints; expected a run folder")
    config = configuration(str(folder / "config.json"))
    if not 0 <= seed < config.seeds:
        raise ValueError(f"seed is {seed}; expected 0 to {config.seeds - 1}, of {folder}")
    expected = read_json(written)
    number = max(expected, key=int)
    checkpoint = folder / "checkpoints" / number
    if checksums(checkpoint) != expected[number]:
        raise ValueError(
            f"{checkpoint} is damaged; the command of the run, given again with --output "
            f"{folder}, goes on from the one before"
        )
    _, chosen = restored(checkpoint.absolute())
    variables = jax.tree.map(lambda leaf: leaf[seed], chosen["variables"])
    model = build(
        config.model,
        classes=variables["params"]["Dense_0"]["bias"].size,
        width=config.width,
        activation=config.activation,
        dtype=jnp.dtype(config.dtype),
    )
    return model, variables


def restored(checkpoint: Path) -> Any:
    """The state in a checkpoint of `Checkpoints`: numpy arrays, named tuples as dicts."""
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(), progress=ocp.JsonCheckpointHandler()
    )
    with ocp.Checkpointer(handler) as checkpointer:
        saved = checkpointer.metadata(checkpoint).item_metadata["state"].tree
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        state = ocp.args.PyTreeRestore(restore_args=kinds)
        return checkpointer.restore(checkpoint, ocp.args.Composite(state=state)).state
