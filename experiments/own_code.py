"""Networks and datasets of one's own: `package.module:name` on a command line."""

import inspect
import pkgutil
import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any


def is_own(name: str) -> bool:
    """Whether a name is of that form; the version of a TFDS dataset is not.

    >>> is_own("mine.nets:Small"), is_own("cifar10:3.0.2"), is_own("cifar10")
    (True, False, False)
    """
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None


def named(option: str, name: str) -> Callable[..., Any]:
    """The function or class of that name, looked for in the current folder too."""
    try:
        found = pkgutil.resolve_name(name)
    except Exception as error:
        raise ValueError(
            f"{option} is {name!r}, which cannot be imported: {_said(error)}"
        ) from error
    if not callable(found):
        raise ValueError(
            f"{option} is {name!r}, {type(found).__name__}; expected a function or class"
        )
    return found


def called(function: Callable[..., Any], option: str, name: str, **options: Any) -> Any:
    """What it gives, with those of the options that it takes."""
    try:
        return function(**{k: v for k, v in options.items() if takes(function, k)})
    except Exception as error:
        raise ValueError(f"{option} is {name!r}, which fails: {_said(error)}") from error


def takes(function: Callable[..., Any], argument: str) -> bool:
    """Whether a function or class names that argument.

    >>> takes(sorted, "key"), takes(sorted, "by"), takes(lambda **options: 1, "key")
    (True, False, False)
    """
    # The metaclass of a class may hide its arguments.
    initializer = attrgetter("__init__")
    made = initializer(function) if isinstance(function, type) else function
    return argument in inspect.signature(made).parameters


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
