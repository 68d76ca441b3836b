"""Takes a trained network out of a run folder."""

from pathlib import Path
from typing import Any

import jax

from experiments.configs import configuration
from experiments.fit.build import named_model
from experiments.fit.step import Variables
from experiments.run_folder import read_json
from experiments.train import checkpoints


def load_run(folder: Path, seed: int = 0) -> tuple[Any, Variables]:
    """The network that a run chose, or the best so far of one that is not finished.

    `model.apply(variables, images)` are the logits of float images that are normalised as
    those of the run were: by what its `config.json` has as `images_normalised_by`.
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
    return named_model(config, classes, channels), variables
