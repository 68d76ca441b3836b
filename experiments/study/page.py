"""The results page: what to use, and every setting's tables and plots, from its rows."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from experiments.run_folder import replacing, writing
from experiments.study import plots
from experiments.study.claims import claims
from experiments.study.company import company
from experiments.study.findings import Finding, findings
from experiments.study.plan import BASELINE
from experiments.study.results import Outcome, Results
from experiments.study.settings import SETTINGS, Setting
from experiments.study.sizes import sizes
from experiments.study.tables import accuracy_table, overview, similarity_table
from experiments.study.treatments import TREATMENTS, Kind
from experiments.study.verdict import verdict

PAGE = "RESULTS.md"
SIZES = "study-sizes.png"
INTRODUCTION = """\
# Does it help?

`python -m experiments.study` makes this page, of the rows in `experiments/results/`,
which the same command trains. Each treatment of the conv kernels has six trials of two
seeds on held-out training images to choose its strength and its learning rate, and so
has the baseline to choose its learning rate, from which the treatments start (those
whose strengths were moved, see the end, have a few more; a setting that takes its
strengths from another has none). What was chosen is trained again from other seeds, and
scored on the test images. Most treatments have a control, which
changes the norms of the kernels alone and is tuned like the rest. ± is the 95 % interval
over seeds (Student t); differences are of equal seeds: the same random weights, the same
images in the same order. "Clear" (a star) is a difference to the baseline, or to the
control, that is called so with about 5 % of all that are being false (paired t-test,
Benjamini and Hochberg, by setting). Blank: not run.
"""
LIMITS = """\
## What these figures do not say

- An interval is over seeds: of one draw of training images, one set of test images, one
  network. A difference that is not clear is not shown, which is not the same as not
  there.
- All differences of a setting share the baseline's seeds, so they err together; the
  first of a list is there because it is the largest, and somewhat by luck.
- matched-shrunk, cosine-shrunk, image-metric-shrunk, zero-mean-shrunk, scaled,
  scale-free-scaled, scale-free-shrunk-decay and those that begin with decay+ were
  thought of after scale-free-shrunk had been scored on the test images of batch-norm,
  and the strengths of paper-reg, of decay and of paper-adjacent-reg, of which the largest
  had been chosen, were then moved up by one decade, two and two; all else was planned
  before.
- The learning rates of adamw were moved up when the baseline had chosen the largest,
  before anything there was scored on the test images.
- Those that begin with decay+ have a decay of 0.1 everywhere, as decay chose in
  batch-norm; in plain it chose 0.001.
- Where a setting takes its strengths from another, only the baseline's learning rate
  was chosen in it, and is used for all.
- "Epochs sooner" counts to the accuracy that the baseline has after half of its epochs,
  on the images that chose the strength, and only seeds that reach it; learning rates
  differ.
- Two seeds of few held-out images choose strengths and rates: what was chosen is not
  always the best.
- Strengths marked "end" are the least or the largest that were tried: a better one may
  lie beyond.
"""


def write_page(folder: Path) -> Path | None:
    """Writes `RESULTS.md` and its plots beside the folder of results.

    Returns:
        The page; None if nothing was scored on test images yet.

    Raises:
        ValueError: a file of results is damaged.
        OSError: it cannot be written.
    """
    known = {name: Results(folder / name).outcomes for name in SETTINGS}
    tested = {name: tests_of(outcomes) for name, outcomes in known.items()}
    found = {name: findings(outcomes) for name, outcomes in known.items()}
    found = {name: each for name, each in found.items() if len(each) > 1}
    if not found:
        return None
    sections = [
        INTRODUCTION,
        verdict(found),
        f"```\n{overview(found)}\n```\n",
        claims(found),
        company(found),
    ]
    figures: dict[str, Figure] = {}
    across = sizes(found)
    if across is not None:
        figures[SIZES] = across
        sections.append(f"![{SIZES}](figures/{SIZES})\n")
    for name in found:
        drawn = draw(name, tested[name], found[name])
        figures |= drawn
        sections.append(section(name, SETTINGS[name], tested[name], found[name], drawn))
    sections += [not_measured(found), LIMITS]
    sections.append(glossary())
    page, pictures = folder.parent / PAGE, folder.parent / "figures"
    with writing(folder.parent, "--results"):
        pictures.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            with replacing(pictures / name, "wb") as file:
                figure.savefig(file, format="png")
        with replacing(page, "w") as file:
            file.write("\n".join(sections))
    return page


def tests_of(outcomes: Mapping) -> dict[str, Outcome]:
    """By treatment, what was scored on the test images."""
    return {t.treatment: each for t, each in outcomes.items() if t.split == "test"}


def draw(
    name: str, outcomes: Mapping[str, Outcome], found: Mapping[str, Finding]
) -> dict[str, Figure]:
    """The plots of a setting, by the name of the file."""
    shown = tuple(treatment for treatment in plots.SHOWN if treatment in outcomes)
    others = tuple(treatment for treatment in shown if treatment != BASELINE)
    kinds = {
        "gains": plots.gains(found, name),
        "similarity": plots.similarity(outcomes, shown, name),
    }
    if others:
        kinds["convergence"] = plots.convergence(outcomes, others, name)
    return {f"study-{name}-{kind}.png": figure for kind, figure in kinds.items()}


def section(
    name: str,
    setting: Setting,
    outcomes: Mapping[str, Outcome],
    found: Mapping[str, Finding],
    figures: Mapping[str, Figure],
) -> str:
    """All there is to say of a setting."""
    config = setting.config
    size = "all" if config.train_size is None else f"{config.train_size:,}"
    pictures = "\n\n".join(f"![{file}](figures/{file})" for file in figures)
    score = next(iter(outcomes.values())).scores[0]
    return (
        f"## {name}\n\n{setting.summary[0].upper()}{setting.summary[1:]}: "
        f"{config.epochs} epochs of {size} training images of {config.dataset}, batches "
        f"of {config.batch_size}, {setting.optimizer}, {config.schedule} schedule; "
        f"{len(outcomes[BASELINE].scores)} seeds; on {score.device}.\n\n"
        f"```\n{accuracy_table(found)}\n```\n\n```\n{similarity_table(found)}\n```\n\n"
        f"{pictures}\n"
    )


def glossary() -> str:
    """What the treatments are."""
    rows = [
        f"| {name} | {treatment.kind.value} | {treatment.summary} |"
        for name, treatment in TREATMENTS.items()
        if treatment.kind is not Kind.BASELINE
    ]
    return "\n".join(
        [
            "## Treatments",
            "",
            "The strength of an initialization is its number of steps of Adam at 2e-3 "
            "(of those that end in -shrunk, the steps of paper-init whose norms they "
            "take; of zero-mean the fraction, of scaled ones the factor), that of a "
            "regularizer the factor of its loss.",
            "",
            "| treatment | kind | |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def not_measured(found: Mapping[str, Mapping[str, Finding]]) -> str:
    """Which treatments of each setting have no result yet."""
    missing = {
        name: [each for each in setting.treatments if each not in found.get(name, {})]
        for name, setting in SETTINGS.items()
    }
    lines = [
        f"- {name}{'' if name in found else ' (' + SETTINGS[name].summary + ')'}: "
        f"{', '.join(each) if name in found else 'all'}"
        for name, each in missing.items()
        if each
    ]
    return "\n".join(["## Not measured yet", "", *lines, ""])
