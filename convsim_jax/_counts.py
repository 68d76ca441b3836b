"""Arguments that count something."""

import operator
from typing import Any


def as_count(value: Any) -> int | None:
    """The int that a value is, or None.

    >>> as_count(3), as_count(True), as_count(3.0)
    (3, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
