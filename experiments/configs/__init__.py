"""Configurations of training runs: one a file, each with a `CONFIG`."""

import dataclasses
import difflib
import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

import typeguard

from experiments.options import PLACES, Config
from experiments.run_folder import read_json

DEFAULT = "digits"
ALL = typeguard.CollectionCheckStrategy.ALL_ITEMS


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
    about, kinds = read_json(path), get_type_hints(Config)
    options = about.get("options") if isinstance(about, dict) else None
    if not isinstance(options, dict) or not options.keys() <= kinds.keys() - {*PLACES}:
        raise ValueError(f"{path} is damaged: it has no options of a training run")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for name, value in options.items():
        try:
            typeguard.check_type(value, kinds[name], collection_check_strategy=ALL)
        except typeguard.TypeCheckError as error:
            raise ValueError(
                f"{path} is damaged: {name} is {json.dumps(value)}: {error}"
            ) from error
    return Config(**options, config=str(path.parent))
