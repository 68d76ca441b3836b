"""What the README promises: that it is short, and that its first lines work."""

import ast
import re
import tomllib
from pathlib import Path

import convsim_jax as cs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.splitlines()) <= 130


def test_its_code_needs_what_the_first_line_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    installed = {re.match(r"\w+", name)[0] for name in project["dependencies"]}
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse("".join(blocks)))
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in getattr(node, "names", [])]
        )
    }
    assert {"jax", "optax"} <= imported <= installed | {"convsim_jax"}
    assert "convsim_jax.flax" not in "".join(blocks)


def test_the_version_is_stated_once():
    files = [*ROOT.glob("*.toml"), *ROOT.glob("Makefile"), *ROOT.glob("convsim_jax/*.py")]
    version = re.compile(rf'version.*"{re.escape(cs.__version__)}"')
    stated = [path.name for path in files if version.search(path.read_text("utf-8"))]
    assert stated == ["__init__.py"]
