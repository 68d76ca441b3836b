"""What a run leaves behind: the curve of every epoch, and what it came to.

In the run folder, `history.json` is the list of `Epoch`s, `results.json` the `Outcome`.
Arrays are numpy float64; a number that is not finite is null in JSON.
"""

from typing import Any, NamedTuple, get_origin, get_type_hints

import numpy as np

from experiments.measurement import Layers


class Epoch(NamedTuple):
    """One epoch; the seeds along the first axis of each array.

    Attributes:
        epoch: counted from 1; 0 is the network before training.
        seconds: time it took, scoring and measuring left out.
        images_per_second: images trained on, of all seeds together, in a second.
        learning_rate: at its last step.
        loss: mean training loss, `(seeds,)`.
        train_accuracy: percentage of the training images right, as they were trained on.
        accuracy: percentage of the validation images right; NaN without any.
        paper_loss: the paper's loss of the kernels, summed over layers.
        scale_free_loss: the scale-free cross-channel loss, summed over layers.
        norm: of all conv kernels together.
    """

    epoch: int
    seconds: float
    images_per_second: float
    learning_rate: float
    loss: np.ndarray
    train_accuracy: np.ndarray
    accuracy: np.ndarray
    paper_loss: np.ndarray
    scale_free_loss: np.ndarray
    norm: np.ndarray


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
        parameters: number of parameters of the network.
        scored: name of the split that `accuracy` is of, `"test"`.
        images: number of images scored.
        accuracy: percentage right, of the chosen network, `(seeds,)`; NaN of a seed that
            diverged.
        chosen_epoch: whose network was chosen, by the validation images; the last
            without any.
        diverged_at: epoch in which a seed diverged; 0 if it did not.
        seconds: of all epochs.
        start: the conv layers before training, after the initialization.
        end: the conv layers of the chosen network.
    """

    parameters: int
    scored: str
    images: int
    accuracy: np.ndarray
    chosen_epoch: np.ndarray
    diverged_at: np.ndarray
    seconds: float
    start: Layers
    end: Layers


def revived(kind: type, content: Any) -> Any:
    """A named tuple, of what JSON has of it.

    Raises:
        ValueError: it has other fields, or values of another kind.
    """
    fields = instance_of(dict, content)
    kinds = get_type_hints(kind)
    if fields.keys() != kinds.keys():
        odd = ", ".join(sorted(fields.keys() ^ kinds.keys()))
        raise ValueError(f"its fields are not those of {kind.__name__}: {odd}")
    return kind(**{name: _value(kinds[name], fields[name]) for name in fields})


def _value(kind: Any, content: Any) -> Any:
    if hasattr(kind, "_fields"):
        return revived(kind, content)
    if kind is np.ndarray:
        return np.array(content, np.float64)  # null is NaN
    if kind is float:
        return float(np.array(content, np.float64))
    return instance_of(get_origin(kind) or kind, content)


def instance_of(kind: type, content: Any) -> Any:
    """`content`, of that type; raises a ValueError otherwise."""
    if not isinstance(content, kind):
        raise ValueError(f"expected {kind.__name__}, found {type(content).__name__}")
    return content
