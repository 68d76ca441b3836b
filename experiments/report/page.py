"""The pages: of a run, how it went and what became of its kernels; of runs, compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from experiments.interval import spread
from experiments.record import Run, read_run
from experiments.report import charts, compare, facts, pictures, wording
from experiments.report.charts import BEFORE, Chart, Line
from experiments.run_folder import replacing, write_csv, writing

# Charts of epochs: fields of `Epoch`, with their names. Templates say what they are.
CURVES = {
    "Accuracy, %": {"train_accuracy": "training", "accuracy": "validation"},
    "Loss": {"loss": "training"},
    "Scale-free loss": {"scale_free_loss": "scale-free loss"},
    "The paper's loss": {"paper_loss": "paper's loss"},
    "Norm of the kernels": {"norm": "norm"},
    "Learning rate": {"learning_rate": "learning rate"},
}
# Charts of layers: what there is at most, and a field of `Layers`.
BARS = {
    "Kernel similarity of each layer": (1, "scale_free_loss"),
    "Feature-map similarity before the activation": (1, "before"),
    "Feature-map similarity after the activation": (1, "after"),
    "Effective maps, % of all": (100, facts.SHARE),
}


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run folder, from what the folder holds so far.

    The page is one file that asks nothing of the network.
    """
    run = read_run(folder)
    lines = [_lines(run, fields) for fields in CURVES.values()]
    groups = {BEFORE: (run, "start"), "after": (run, "end")}
    page = _rendered("run.html", lines, groups, run=run, pictures=pictures)
    path = folder / "report.html"
    with writing(folder, "the run folder"), replacing(path, "w") as file:
        file.write(page)
    return path


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Writes a page that has runs beside each other, and its numbers as CSV."""
    runs = compare.named([read_run(folder) for folder in folders])
    lines = [
        [line for name in runs for line in _lines(runs[name], {[*fields][-1]: name})]
        for fields in CURVES.values()
    ]
    groups = {name: (run, "end") for name, run in runs.items()}
    if len({tuple(run.outcome.end.names) for run in runs.values() if run.outcome}) > 1:
        groups = {}  # one network's layers are not the other's
    page = _rendered("comparison.html", lines, groups, runs=runs, compare=compare)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(path.with_suffix(".csv"), *compare.table(runs))
        with replacing(path, "w") as file:
            file.write(page)
    return path


def _lines(run: Run, fields: Mapping[str, str]) -> list[Line]:
    """A line of each field of `Epoch`; of the last accuracy, with the chosen epochs."""
    epochs = np.array([epoch.epoch for epoch in run.history])
    found = []
    for field, name in fields.items() if run.history else ():
        values = np.array([getattr(epoch, field) for epoch in run.history], float)
        values = values.reshape(len(values), -1)  # one column, of all seeds together
        of_seeds = values.shape[1] == len(run.finished)
        finished = run.finished if of_seeds else np.ones(1, bool)
        chosen = run.outcome.chosen_epoch if run.outcome and field == "accuracy" else None
        found.append(Line(name, epochs, values, finished, chosen))
    return found


def _bars(groups: Mapping[str, tuple[Run, str]]) -> list[Chart]:
    """A chart of each quantity of a layer that is known of any group."""
    found = []
    for title, (top, field) in BARS.items():
        means = {name: facts.layer_means(*of, field) for name, of in groups.items()}
        for known in [mean for mean in means.values() if mean is not None][:1]:
            none = np.full_like(known, np.nan)  # so that all groups keep their colours
            bars = {name: none if x is None else x for name, x in means.items()}
            found.append(charts.bars(title, bars, top))
    return found


def _rendered(
    template: str,
    lines: Sequence[list[Line]],
    groups: Mapping[str, tuple[Run, str]],
    **values: Any,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= vars(wording) | vars(facts) | {"spread": spread}
    titled = zip(CURVES, lines, strict=True)
    curves = [charts.curves(title, of) for title, of in titled if any(of)]
    values |= {"facts": facts, "curves": curves, "layers": _bars(groups)}
    return environment.get_template(template).render(**values)
