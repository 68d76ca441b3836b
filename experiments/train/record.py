"""What a run leaves behind: the curve of every epoch, and what it came to.

In the run folder, `history.json` is the list of `Epoch`s, `results.json` the `Outcome`.
Arrays are numpy float64; a number that is not finite is null in JSON.
"""

from typing import NamedTuple

import numpy as np


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


class Layers(NamedTuple):
    """Conv layers, by path; arrays are `(seeds, layers)`.

    Attributes:
        names: path of each kernel, such as `Conv_0/kernel`.
        shapes: of each kernel.
        norm: of each kernel.
        paper_loss: Convolutional Similarity, matched channels.
        scale_free_loss: scale-free, cross channels, in [0, 1].
        before: feature-map similarity before the activation, on test images.
        after: the same after the activation.
    """

    names: list[str]
    shapes: list[list[int]]
    norm: np.ndarray
    paper_loss: np.ndarray
    scale_free_loss: np.ndarray
    before: np.ndarray
    after: np.ndarray


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
        parameters: number of parameters of the network.
        scored: name of the split that `accuracy` is of, `"test"`.
        images: number of images scored.
        accuracy: percentage right, of the chosen network, `(seeds,)`.
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
