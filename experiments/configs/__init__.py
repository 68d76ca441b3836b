"""Configurations of training runs: one a file, each with a `CONFIG`."""

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_origin, get_type_hints

from experiments.run_folder import read_json
from experiments.train.config import Config

DEFAULT = "digits"


def names() -> list[str]:
    """The names of all configurations.

    >>> "digits" in names()
    True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def configuration(name: str) -> Config:
    """The configuration of that name, or of the run in that folder.

    Raises:
        ValueError: there is none.
    """
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
    """What `--config` is among the arguments.

    >>> given(["--seeds", "3", "--config", "digits"]), given(["--config=digits"])
    ('digits', 'digits')
    """
    for i, argument in enumerate(argv):
        option, _, value = argument.partition("=")
        if option == "--config":
            return value or (argv[i + 1] if i + 1 < len(argv) else "")
    return DEFAULT


def _of_run(path: Path) -> Config:
    options = read_json(path).get("options")
    kinds = get_type_hints(Config)
    if not isinstance(options, dict) or not options.keys() <= kinds.keys():
        raise ValueError(f"{path} is damaged: it has no options of a training run")
    for name, value in options.items():
        if get_origin(kinds[name]) is tuple:
            options[name] = tuple(value)
    return Config(**options, config=str(path.parent))
