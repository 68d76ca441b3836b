"""The notebooks are kept without outputs, and install nothing without an address.

That they run from the first cell to the last, `make docs` tests.
"""

import importlib.util
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
ADDRESS = "https://example.org/owner/convsim_jax"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    notebook = nbformat.read(request.param, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["measure_your_model", "quickstart"]


def test_no_output_is_kept(cells):
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.fixture
def installed(cells, monkeypatch):
    """Runs the install cell with `REPOSITORY` as given; returns what pip was told."""

    def run(found, address):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found or None)
        told = []

        class Shell:
            def run_line_magic(self, magic, line):
                told.append((magic, line))

        empty = 'REPOSITORY = ""'
        assert empty in cells[0].source
        source = cells[0].source.replace(empty, f"REPOSITORY = {address!r}")
        python = TransformerManager().transform_cell(source)
        exec(compile(python, "the install cell", "exec"), {"get_ipython": Shell})
        return told

    return run


def test_nothing_is_installed_where_it_is_found(installed):
    assert installed(found=True, address=ADDRESS) == []


def test_it_stops_without_an_address(installed):
    with pytest.raises(SystemExit, match="REPOSITORY"):
        installed(found=False, address="")


def test_it_installs_from_the_address(installed):
    told = installed(found=False, address=ADDRESS)
    assert {magic for magic, _ in told} == {"pip"}
    assert '"convsim_jax @ git+{REPOSITORY}"' in told[0][1]  # IPython fills it in
