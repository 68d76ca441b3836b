"""The page of all results with tuned strengths: tables and plots, of the rows alone.

What follows from them is written by hand, in docs/results.md.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.compare import plots, table
from experiments.compare.results import Results
from experiments.compare.settings import BY_WIDTH, Setting
from experiments.compare.statistics import Findings, findings
from experiments.interventions import INTERVENTIONS
from experiments.models import build
from experiments.run_folder import replacing, writing

PAGE = "README.md"
INTRODUCTION = """\
# All tables and plots

`python -m experiments.compare --settings all --minutes 0` makes this page of the rows in
the folders beside it, which the same command trains without `--minutes 0`. What follows
from it is in docs/results.md.

Each method has six trials of two seeds on held-out training images to choose its
strength and its learning rate, and so has the baseline to choose its learning rate, from
which the others start; a setting that takes its strengths from another has none. Where
the baseline is decay, its six trials are of weight decay and learning rate, and the
others have that decay besides; where a trial takes minutes (cifar10, cifar100, fast,
resnet18), they have three, of one seed. What was chosen is trained again from other
seeds, and scored on the test images. A strength or learning rate marked "end" is the
least or the largest that was tried. A control changes the norms of the
kernels alone, or the kernels without Convolutional Similarity.
"Epochs to" counts on the held-out images (on the test images where those are trained on
too), to the accuracy that the baseline has there after half of its epochs.
The intervals of correlations are Bonett's and Wright's; methods have much in
common, and so they are too narrow rather than too wide.
"""
GLOSSARY = """\
## Methods

The strength of an initialization is its number of steps of Adam at 2e-3 (of those that
end in -shrunk, the steps of paper-init whose norms they take; of zero-mean the fraction,
of scaled ones the factor, of whitened the ridge), that of what is added in training the
factor of its loss.

| name | role | |
| --- | --- | --- |
"""


def write_page(folder: Path, settings: Mapping[str, Setting]) -> Path | None:
    """Writes the page and its plots into the folder of results.

    Returns:
        The page; None if nothing was scored on test images yet.

    Raises:
        ValueError: a file of results is damaged.
        OSError: it cannot be written.
    """
    found = {}
    for name, setting in settings.items():
        each = findings(Results(folder / name).outcomes, baseline=setting.baseline)
        if len(each) > 1:
            found[name] = each
    if not found:
        return None
    parts = [INTRODUCTION, f"{table.LEGEND}\n"]
    for baseline in dict.fromkeys(settings[name].baseline for name in found):
        alike = {x: y for x, y in found.items() if settings[x].baseline == baseline}
        parts.append(f"```\n{table.overview(alike)}\n```\n")
    with writing(folder, "--results"):
        for plot, names in BY_WIDTH.items():
            widths = {name: parameters(settings[name]) for name in names if name in found}
            if len(widths) > 1:
                plots.save({plot: plots.sizes(found, widths)}, folder, "cifar10")
                parts.append(f"![accuracy against number of parameters]({plot}.png)\n")
        for name, each in found.items():
            title = described(settings[name], each)
            drawn = plots.figures(each, settings[name])
            plots.save(drawn, folder / name, title)
            pictures = "\n\n".join(f"![{name}: {x}]({name}/{x}.png)" for x in drawn)
            tables = [table.table(each, tuned=True), table.correlation_table(each)]
            text = "\n\n".join(f"```\n{x}\n```" for x in tables if x)
            text += f"\n\n{pictures}\n"
            if missing := [x for x in settings[name].methods if x not in each]:
                text += f"\nNot measured yet: {', '.join(missing)}.\n"
            parts.append(f"## {name}\n\n{title}.\n\n{text}")
        summaries = (
            f"| {name} | {x.role} | {x.summary} |\n" for name, x in INTERVENTIONS.items()
        )
        with replacing(folder / PAGE, "w") as file:
            file.write("\n".join([*parts, GLOSSARY + "".join(summaries)]))
    return folder / PAGE


def described(setting: Setting, found: Findings) -> str:
    """What a setting is, in a line."""
    config = setting.config
    size = "all" if config.train_size is None else f"{config.train_size:,}"
    baseline = found.get(setting.baseline) or next(iter(found.values()))
    return (
        f"{setting.summary[0].upper()}{setting.summary[1:]}: {config.epochs} epochs of "
        f"{size} training images of {config.dataset}, batches of {config.batch_size}, "
        f"{config.optimizer}, {config.schedule} schedule; "
        f"{len(baseline.accuracy)} seeds; on {baseline.outcome.scores[0].device}"
    )


def parameters(setting: Setting) -> int:
    """Of the network of a setting, for CIFAR-10."""
    config = setting.config
    model = build(config.model, classes=10, width=config.width, widths=config.widths)
    images = jnp.zeros((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
