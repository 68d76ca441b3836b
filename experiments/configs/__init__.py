"""Configurations of training runs: one a file, each with a `CONFIG`."""

import dataclasses
import difflib
import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from experiments.options import PLACES, Config
from experiments.run_folder import read_json

DEFAULT = "digits"


def names() -> list[str]:
    """The names of all configurations.

    >>> "digits" in names()
    True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def configuration(name: str) -> Config:
    """The configuration of that name, or of the run in that folder."""
    if name in names():
        module = importlib.import_module(f"experiments.configs.{name}")
        return dataclasses.replace(module.CONFIG, config=name)
    path = Path(name) if name.endswith(".json") else Path(name, "config.json")
    if path.exists():
        return _of_run(path)
    close = difflib.get_close_matches(name, names(), n=3) or names()
    raise ValueError(
        f"--config is {name!r}; expected {', '.join(close)}, or the folder of a run"
    )


def given(argv: Sequence[str]) -> str:
    """What `--config` is among the arguments, the last one if it is there twice.

    >>> given(["--seeds", "3", "--config", "digits"]), given(["--config=digits"])
    ('digits', 'digits')
    """
    name = DEFAULT
    for argument, following in zip(argv, [*argv, ""][1:], strict=True):
        option, _, value = argument.partition("=")
        if option == "--config":
            name = value or following
    return name


def _of_run(path: Path) -> Config:
    about = read_json(path)
    options = about.get("options") if isinstance(about, dict) else None
    kinds = get_type_hints(Config)
    if not isinstance(options, dict) or not options.keys() <= kinds.keys() - {*PLACES}:
        raise ValueError(f"{path} is damaged: it has no options of a training run")
    for name, value in options.items():
        if not _is_of(kinds[name], value):
            raise ValueError(f"{path} is damaged: {name} is {json.dumps(value)}")
        if isinstance(value, list):
            options[name] = tuple(value)
    return Config(**options, config=str(path.parent))


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value, as JSON has it, is of the kind that a type hint says.

    >>> _is_of(int | None, None), _is_of(int, True), _is_of(tuple[int, ...], [1, 2])
    (True, False, True)
    """
    kinds = get_args(kind)
    if get_origin(kind) is Literal:
        return value in kinds
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_is_of(kinds[0], item) for item in value)
    if kinds:  # a union
        return any(_is_of(each, value) for each in kinds)
    return type(value) in ((int, float) if kind is float else (kind,))
