"""The README's snippets run, one after the other, and say what the README says."""

import re
from pathlib import Path

import pytest

import convsim_jax as cs
from convsim_jax import orthogonality

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_snippets_run(relaxed_jax, capsys):
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) >= 3
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    before, after = map(float, re.findall(r"^(\S+) -> (\S+)$", printed, re.MULTILINE)[0])
    assert 0 < after < before
    kernels = cs.conv_kernels(names["params"])
    assert kernels.keys() == {"layers_0/kernel", "layers_2/kernel"}
    assert all(printed.count(path.removesuffix("/kernel")) == 2 for path in kernels)


@pytest.mark.parametrize(
    "module", [cs, orthogonality], ids=["convsim_jax", "orthogonality"]
)
def test_the_table_names_every_function(module):
    public = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
    functions = [name for name in public if name[0].islower() and name[0] != "_"]
    assert functions
    missing = [name for name in functions if f"{name}(" not in README]
    assert not missing


def test_the_version_is_stated_once():
    root = Path(__file__).parents[1]
    files = [*root.glob("*.toml"), *root.glob("Makefile"), *root.glob("convsim_jax/*.py")]
    version = re.compile(rf'version.*"{re.escape(cs.__version__)}"')
    stated = [path.name for path in files if version.search(path.read_text("utf-8"))]
    assert stated == ["__init__.py"]
