"""Imports run down only: no circle among the rooms, and none knows what is above."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import experiments

ROOT = Path(experiments.__file__).parents[1]
COMMANDS = {"compare", "train", "benchmark", "theory", "predictors"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_below(package):
    """Each file or folder of a package, and those whose code it imports."""
    rooms = {}
    for path in (ROOT / package).rglob("*.py"):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        below = rooms.setdefault(room, set())
        for name in imports(path):
            first, _, rest = name.partition(".")
            if first == package and rest.split(".")[0] in known(package) - {room}:
                below.add(rest.split(".")[0])
    return rooms


def known(package):
    paths = (ROOT / package).iterdir()
    names = {
        path.name.removesuffix(".py") for path in paths if path.suffix in ("", ".py")
    }
    return names - {"__init__", "__pycache__"}


def test_there_is_no_circle():
    for package in ("experiments", "convsim_jax"):
        rooms = rooms_below(package)
        rooms.pop("__init__", None)
        assert len(list(TopologicalSorter(rooms).static_order())) >= len(rooms) > 5


def test_nothing_knows_the_commands():
    for room, below in rooms_below("experiments").items():
        assert room in COMMANDS or not below & COMMANDS


def test_the_library_needs_jax_optax_and_chex_alone():
    for path in (ROOT / "convsim_jax").rglob("*.py"):
        found = {name.partition(".")[0] for name in imports(path)}
        allowed = {"flax"} if path.parent.name == "flax" else set()
        assert not found & {"experiments", "flax", "numpyro", "scipy"} - allowed
