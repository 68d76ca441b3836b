"""What the pages state of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.interval import NONE, mean
from experiments.interventions import EARLIER, INTERVENTIONS
from experiments.record import Run
from experiments.report.wording import number

SHARE = "effective share"
# What is told of a layer, by its name in `Layers`; what a run has not is left out.
MEASURES = {
    "norm": "norm",
    "paper_loss": "paper's loss",
    "scale_free_loss": "kernel similarity",
    "before": "feature-map similarity before the activation",
    "after": "feature-map similarity after it",
    "before_centered": "centered, before it",
    "after_centered": "centered, after it",
    "effective_before": "effective maps before it",
    "effective_after": "effective maps after it",
}


def title(run: Run) -> str:
    """What was trained on what."""
    named = (run.options.get(name) for name in ("model", "dataset"))
    return " on ".join(Path(str(x)).name for x in named if x) or run.folder.resolve().name


def summary(run: Run) -> str:
    """What its method is, in words; nothing of one that is not known."""
    name = str(run.options.get("method"))
    known = INTERVENTIONS.get(EARLIER.get(name, name))
    return known.summary if known else ""


def noted(run: Run) -> dict[str, Any]:
    """What the run folder notes besides, such as what the dataset was."""
    rows = {x: y for x, y in run.config.items() if x not in ("options", "command")}
    for option, parts in rows.pop("settled", {}).items():
        parts = parts if isinstance(parts, dict) else {"": parts}
        named = {f"{option} {x}".replace("_", " ").strip(): y for x, y in parts.items()}
        rows |= {name: y for name, y in named.items() if y not in ("", None)}
    return rows


def layer_values(run: Run, when: str, field: str) -> np.ndarray | None:
    """A field of `Layers`, `(seeds, layers)`, if it is known.

    `SHARE` is the effective maps before the activation, in % of a layer's maps. The
    kernel similarity of kernels of one tap is NaN: it would be 1 whatever they are.
    """
    layers = getattr(run.outcome, when, None)
    values = getattr(layers, "effective_before" if field == SHARE else field, None)
    if layers is None or values is None:
        return None
    if field == SHARE:
        values = 100 * values / [shape[-1] for shape in layers.shapes]
    if field == "scale_free_loss":
        taps = [np.prod(shape[:-2]) for shape in layers.shapes]
        values = np.where(np.array(taps) > 1, values, np.nan)
    return np.asarray(values)


def layer_means(run: Run, when: str, field: str) -> np.ndarray | None:
    """The mean of the seeds that finished, `(layers,)`, if there are any."""
    values = layer_values(run, when, field)
    if values is None or not run.finished.any():
        return None
    return np.asarray(values[run.finished].mean(0))


def change(run: Run, field: str) -> str:
    """The mean over layers before and after training."""
    both = (layer_means(run, when, field) for when in ("start", "end"))
    return " → ".join(NONE if values is None else number(mean(values)) for values in both)


def layer_rows(run: Run) -> list[list[str]]:
    """Headings, then a row a layer: each of `MEASURES` before and after training."""
    if run.outcome is None or not run.finished.any():
        return []
    end = run.outcome.end
    known = {
        name: (start, layer_means(run, "end", field))
        for field, name in MEASURES.items()
        if (start := layer_means(run, "start", field)) is not None
    }
    rows = [["layer", "kernel", *known]]
    for i, (path, shape) in enumerate(zip(end.names, end.shapes, strict=True)):
        both = ((x[i], y[i]) for x, y in known.values() if y is not None)
        cells = [f"{number(x)} → {number(y)}" for x, y in both]
        rows.append([path.removesuffix("/kernel"), "x".join(map(str, shape)), *cells])
    return rows
