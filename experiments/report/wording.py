"""Numbers and options in words, as the page shows them."""

import math
from typing import Any

import numpy as np

from experiments.interval import interval

NONE = "-"


def number(value: float) -> str:
    """Three significant digits; a dash for what is not finite.

    >>> [number(value) for value in (0.00123, 0.5, 12.34, 1234.5, 2.5e6, float("nan"))]
    ['0.00123', '0.500', '12.3', '1,234', '2.50e6', '-']
    """
    if not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:#.3g}".rstrip(".")


def count(value: float, noun: str) -> str:
    """A number of things.

    >>> count(1, "seed"), count(10000, "image")
    ('1 seed', '10,000 images')
    """
    return f"{value:,.0f} {noun}{'' if value == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in the units that people use.

    >>> [duration(seconds) for seconds in (0.25, 42, 200, 3720)]
    ['0.2 s', '42 s', '3 min 20 s', '1 h 02 min']
    """
    if not math.isfinite(seconds):
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def percentage(values: np.ndarray) -> str:
    """The mean over seeds and, of two or more, its 95 % interval.

    >>> percentage(np.array([98.0, 99.0, 100.0])), percentage(np.array([98.0]))
    ('99.00 ± 2.48 %', '98.00 %')
    """
    mean, reach = interval(values)
    if not math.isfinite(mean):
        return NONE
    return f"{mean:.2f} %" if math.isnan(reach) else f"{mean:.2f} ± {reach:.2f} %"


def span(values: np.ndarray) -> str:
    """Whole numbers, by the smallest and the largest.

    >>> span(np.array([7.0, 5.0, 6.0])), span(np.array([3.0]))
    ('5 to 7', '3')
    """
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def option(value: Any) -> str:
    """The value of an option.

    >>> option(None), option(True), option([100, 150]), option(1e-3)
    ('-', 'yes', '100, 150', '0.001')
    """
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(option, value)) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{name} {option(item)}" for name, item in value.items())
    return str(value)
