"""The mean of independent values, and how sure it is."""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

NONE = "-"
# Of fewer values an interval is so wide that it says less than they do.
ENOUGH = 3


class Interval(NamedTuple):
    """A mean, and how far its 95 % interval reaches to either side.

    Student's t over seeds: NaN for the interval of one seed, and for all of none.
    """

    mean: float
    reach: float


def interval(values: np.ndarray) -> Interval:
    """The mean of independent values and its interval.

    >>> interval(np.array([1.0, 2.0, 3.0]))
    Interval(mean=2.0, reach=2.484...)
    """
    count = len(values)
    if count < 2:
        return Interval(float(values.mean()) if count else np.nan, np.nan)
    error = values.std(ddof=1) / np.sqrt(count)
    return Interval(float(values.mean()), float(stdtrit(count - 1, 0.975) * error))


def mean(values: np.ndarray) -> float:
    """The mean of the values that are finite; NaN of none.

    >>> mean(np.array([1.0, np.nan, 3.0]))
    2.0
    """
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else np.nan


def spread(values: np.ndarray, form: str = ".2f") -> str:
    """In words: the mean and its interval, or values themselves where they are few.

    >>> spread(np.array([98.0, 99, 100])), spread(np.array([1.0, -2]), "+.1f")
    ('99.00 ± 2.48', '+1.0, -2.0')
    """
    values = values[np.isfinite(values)]
    if len(values) < ENOUGH:
        return ", ".join(format(value, form) for value in values) or NONE
    middle, reach = interval(values)
    return f"{middle:{form}} ± {reach:.2f}"
