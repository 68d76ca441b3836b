# make demo: the main job on data that ships with a dependency.
# make test: lint, types, documentation, doctests and tests, as CI runs them.
# make test-library: the tests of convsim_jax that are quick, for while you work.
# make matrix: its tests on each Python here, with the lowest and the newest versions.
# make accelerators: every program compiled for an H100 and a TPU v5e, which need not be there.
# make docs: the documentation site, in docs/_build/html.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Most of the tests' time is XLA's compilation; its older code for CPUs takes less of it.
# Never with JAX_DISABLE_MOST_OPTIMIZATIONS besides: then XLA's programs train wrongly.
COMPILE = XLA_FLAGS=--xla_cpu_use_fusion_emitters=false

.PHONY: demo test test-library matrix accelerators lint types docs pytest format clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m experiments.compare

test: lint types docs pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

docs: $(VENV)/test.stamp
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning docs docs/_build/html
	@echo documentation: docs/_build/html/index.html

pytest: $(VENV)/test.stamp
	$(COMPILE) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# An environment of its own: the compilers take 2 GB.
accelerators: $(VENV)-accelerators/stamp
	$(VENV)-accelerators/bin/python -m pytest --numprocesses 2 tests/accelerators

$(VENV)-accelerators/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-accelerators
	$(VENV)-accelerators/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev,accelerators]' || \
		{ echo "error: the compilers for accelerators cannot be installed" >&2; exit 1; }
	touch $@

test-library: $(VENV)/test.stamp
	$(COMPILE) $(BIN)/python -m pytest --numprocesses 2 \
	  -m 'not slow' tests/library convsim_jax

matrix: $(VENV)/test.stamp
	$(INSTALL) uv
	$(BIN)/python tests/matrix.py

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "convsim_jax needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[experiments]'
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) $(VENV)-accelerators .mypy_cache .pytest_cache .ruff_cache .hypothesis docs/_build build
