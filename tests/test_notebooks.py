"""The notebooks run from the first cell to the last, and their outputs are kept ones."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
EXACT = {"rel": 0.01, "abs": 0.001}  # as the numbers are printed
# Of cells with the tag "optimized": another processor goes another way down.
OPTIMIZED = {"rel": 0.15, "abs": 0.05}


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["measure_your_model", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_says_what_it_said(path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles quickly
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(run, timeout=600, kernel_name="python3", resources=where).execute()
    for old, new in zip(kept.cells, run.cells, strict=True):
        tags = old.metadata.get("tags", [])
        old, new = (said(cell) for cell in (old, new))
        assert NUMBER.sub("0", new) == NUMBER.sub("0", old)
        numbers = [[*map(float, NUMBER.findall(text))] for text in (new, old)]
        tolerance = OPTIMIZED if "optimized" in tags else EXACT
        assert numbers[0] == pytest.approx(numbers[1], **tolerance)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_of_no_machine(path):
    text = path.read_text("utf-8")
    assert len(text) < 100_000
    assert not re.search(r"/tmp|/home|/root|site-packages|20\d\d-\d\d", text)
    cells = [c for c in nbformat.reads(text, 4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(
        "image/png" in output.get("data", {}) for c in cells for output in c.outputs
    )


def said(cell):
    """What a cell puts out, in words: spaces, which follow the numbers, count as one."""
    outputs = cell.get("outputs", [])
    texts = [
        output.get("text", output.get("data", {}).get("text/plain")) for output in outputs
    ]
    return " ".join(" ".join(texts).split())
