"""The charts of a run: curves over epochs, and layers before and after training."""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from experiments.record import Outcome, Run
from experiments.report import plots
from experiments.report.wording import number


class Chart(NamedTuple):
    """A plot, what it says to those who do not see it, and what its quantity is."""

    title: str
    image: Markup
    description: str
    explanation: str


class Quantity(NamedTuple):
    """What a chart shows of an epoch: fields of `Epoch`, with their names."""

    title: str
    fields: dict[str, str]
    explanation: str
    logarithmic: bool = False


QUANTITIES = (
    Quantity(
        "Loss",
        {"loss": "training"},
        "Mean cross-entropy of the epoch's training batches. Terms that are added to it, "
        "such as a regularizer, are left out.",
    ),
    Quantity(
        "Accuracy, %",
        {"train_accuracy": "training", "accuracy": "validation"},
        "Images classified correctly: training images as they were trained on, those for "
        "validation, if any, after the epoch.",
    ),
    Quantity(
        "Learning rate",
        {"learning_rate": "learning rate"},
        "Size of the optimizer's steps at the end of the epoch.",
    ),
    Quantity(
        "Scale-free similarity of the kernels",
        {"scale_free_loss": "scale-free loss"},
        "How alike the kernels of a layer are at all lags and over all input channels, "
        "whatever their size: 0 to 1 a layer, summed over layers.",
    ),
    Quantity(
        "The paper's loss",
        {"paper_loss": "paper's loss"},
        "Convolutional Similarity, summed over pairs of kernels and over layers. It is "
        "of degree 4 in the weights, so it falls when they merely shrink.",
        logarithmic=True,
    ),
    Quantity(
        "Norm of the kernels",
        {"norm": "norm"},
        "Of all conv kernels together. Where it falls, the paper's loss falls with it.",
    ),
)

# Of each quantity of a layer: a title, the field, what it is.
LAYER_QUANTITIES = (
    (
        "Kernels, scale-free",
        "scale_free_loss",
        "Mean over pairs of kernels, 0 to 1. Kernels of one tap (1x1) have one lag, so "
        "theirs is always 1.",
    ),
    (
        "Feature maps before the activation",
        "before",
        "Mean absolute cosine of two channels of the layer's output on training images: "
        "1 says the same, 0 has nothing in common.",
    ),
    (
        "Feature maps after the activation",
        "after",
        "The same once the activation has been applied.",
    ),
)


def curves(run: Run) -> list[Chart]:
    """A chart of each quantity that has a number in any epoch."""
    charts: list[Chart] = []
    if not run.history:
        return charts
    for title, fields, explanation, logarithmic in QUANTITIES:
        shown = [plots.Curve(name, _values(run, field)) for field, name in fields.items()]
        shown = [curve for curve in shown if np.isfinite(curve.values).any()]
        if not shown:
            continue
        of_seeds = shown[0].values.shape[1] == len(run.finished)
        finished = run.finished if of_seeds else np.ones(1, bool)
        chosen = None
        if run.outcome is not None and shown[-1].name == "validation":
            chosen = run.outcome.chosen_epoch
            explanation += " A dot marks the epoch whose network was chosen."
        figure = plots.curves(
            _epochs(run), shown, finished, chosen=chosen, logarithmic=logarithmic
        )
        words = "; ".join(_in_words(run, curve, finished) for curve in shown)
        charts.append(
            Chart(title, _svg(figure, title), f"{title}: {words}.", explanation)
        )
    return charts


def layers(run: Run) -> list[Chart]:
    """Each quantity of a layer before and after training, the mean of the seeds."""
    if run.outcome is None or not run.finished.any():
        return []
    charts = []
    for title, field, explanation in LAYER_QUANTITIES:
        start, end = layer_means(run.outcome, field)
        words = (
            f"{title}, of {len(end)} conv layers: mean {number(start.mean())} before "
            f"training, {number(end.mean())} after."
        )
        charts.append(
            Chart(title, _svg(plots.layers(start, end), title), words, explanation)
        )
    return charts


def layer_means(outcome: Outcome, field: str) -> tuple[np.ndarray, np.ndarray]:
    """A field of `Layers` before and after training, mean of the seeds that finished."""
    start, end = (
        getattr(layers, field)[outcome.diverged_at == 0].mean(axis=0)
        for layers in (outcome.start, outcome.end)
    )
    return start, end


def _svg(figure: Figure, title: str) -> Markup:
    return Markup(plots.svg(figure, title))


def _epochs(run: Run) -> np.ndarray:
    return np.array([epoch.epoch for epoch in run.history])


def _values(run: Run, field: str) -> np.ndarray:
    """A field of every epoch, `(epochs, seeds)`; of all seeds together, `(epochs, 1)`."""
    values = np.array([getattr(epoch, field) for epoch in run.history])
    return values.reshape(len(values), -1)


def _in_words(run: Run, curve: plots.Curve, finished: np.ndarray) -> str:
    values = curve.values[:, finished] if finished.any() else curve.values
    known = np.isfinite(values).all(axis=1)
    if not known.any():
        return f"{curve.name} known of no epoch"
    first, last = np.flatnonzero(known)[[0, -1]]
    return " and ".join(
        f"{curve.name} {number(values[i].mean())} in epoch {_epochs(run)[i]}"
        for i in dict.fromkeys((first, last))
    )
