"""The page: what a run was, how it went, and what became of its kernels."""

from pathlib import Path

import jinja2

from experiments.interventions import EARLIER, INTERVENTIONS
from experiments.record import Run, read_run
from experiments.report import charts, facts, pictures
from experiments.report.wording import option
from experiments.run_folder import replacing, writing


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run folder, from what the folder holds so far.

    The page is one file that asks nothing of the network.

    Returns:
        The path of the page.

    Raises:
        ValueError: `folder` is no run folder, or a file in it is damaged.
        OSError: a file cannot be read, or the page cannot be written.
    """
    page = render(read_run(folder))
    path = folder / "report.html"
    with writing(folder, "the run folder"), replacing(path, "w") as file:
        file.write(page)
    return path


def render(run: Run) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    options = run.config["options"]
    name = str(options.get("method"))
    method = INTERVENTIONS.get(EARLIER.get(name, name))
    return environment.get_template("page.html").render(
        title=facts.title(run),
        folder=run.folder.resolve().name,
        method=options.get("method"),
        summary=method and method.summary,
        warnings=facts.warnings(run),
        facts=facts.facts(run),
        several=len(run.finished) > 1,
        diverged=not run.finished.all(),
        seeds=facts.seed_rows(run),
        curves=charts.curves(run),
        layers=charts.layers(run),
        layer_rows=facts.layer_rows(run),
        measures=facts.MEASURES.values(),
        filters=pictures.filters(run),
        matrices=pictures.matrices(run),
        scale=pictures.scale(),
        shown=pictures.SHOWN,
        command=run.config.get("command"),
        options={name: option(value) for name, value in options.items()},
        about={
            name: option(value)
            for name, value in run.config.items()
            if name not in ("options", "command")
        },
    )
