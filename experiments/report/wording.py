"""Numbers and options in words, as the pages show them."""

import math
from datetime import timedelta
from typing import Any

from experiments.interval import NONE


def number(value: float) -> str:
    """Three significant digits; a dash for what is not finite.

    >>> [number(value) for value in (0.00123, 0.5, 12.34, 1234.5, float("nan"))]
    ['0.00123', '0.500', '12.3', '1,234', '-']
    """
    if not math.isfinite(value):
        return NONE
    text = f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:#.3g}"
    return text.rstrip(".")


def duration(seconds: float) -> str:
    """A time, in hours, minutes and seconds.

    >>> [duration(seconds) for seconds in (0.25, 42, 3720)]
    ['0.2 s', '42.0 s', '1:02:00']
    """
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def option(value: Any) -> str:
    """The value of an option.

    >>> option(None), option(True), option([100, 150]), option({"jax": 1e-3})
    ('-', 'yes', '100, 150', 'jax 0.001')
    """
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return ", ".join(map(option, value)) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{name} {option(item)}" for name, item in value.items())
    return str(value)
