"""What is wrong with an argument: every check says its name, what came, and what to give.

Beside them the dtype that sums are taken in, which follows from that of an argument.
"""

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

MAX_SPATIAL_AXES = 3


def check_array(value: Any, name: str) -> jax.Array:
    """`value` as a JAX array, or a ValueError that says what `name` is instead."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        shown = " ".join(repr(value).split())[:80]
        raise ValueError(f"{name} is {shown}; expected an array") from error


def check_kernel(kernel: chex.Array, name: str = "kernel") -> jax.Array:
    """`kernel` as a JAX array, or a ValueError that says of `name` what is wrong."""
    kernel = check_array(kernel, name)
    check_kernel_type(kernel.shape, kernel.dtype, name)
    return kernel


def check_kernel_type(shape: tuple[int, ...], dtype: Any, name: str = "kernel") -> None:
    """Raises a ValueError unless a kernel can have this shape and dtype."""
    if not 3 <= len(shape) <= 2 + MAX_SPATIAL_AXES:
        raise ValueError(
            f"{name} has shape {shape}, of rank {len(shape)}; expected "
            "(*window, C, M) with 1 to 3 spatial axes, so a rank of 3, 4 or 5"
        )
    if 0 in shape:
        raise ValueError(
            f"{name} has shape {shape}; expected at least one entry on every axis"
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {dtype}; expected a floating-point dtype")


def accumulation_dtype(dtype: chex.ArrayDType) -> np.dtype:
    """The dtype to add in: float32 for half precisions, `dtype` for the others."""
    return jnp.dtype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)


def as_count(value: Any) -> int | None:
    """The int that a value is, NumPy's among them, or None.

    >>> as_count(3), as_count(True), as_count(3.0)
    (3, None, None)
    """
    if isinstance(value, bool | np.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_count(value: Any, name: str, least: int = 1) -> int:
    """The int that `value` is, or a ValueError if it is none, or less than `least`."""
    count = as_count(value)
    if count is None or count < least:
        expected = "a positive int" if least == 1 else f"an int, {least} or larger"
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return count


def check_groups(
    kernel: jax.Array | jax.ShapeDtypeStruct,
    feature_group_count: Any,
    name: str = "kernel",
) -> int:
    """Returns `feature_group_count`, or raises a ValueError if it cannot be."""
    groups = check_count(feature_group_count, "feature_group_count")
    M = kernel.shape[-1]
    if M % groups:
        raise ValueError(
            f"feature_group_count is {feature_group_count}, which does not divide the "
            f"{M} output channels of {name}, of shape {kernel.shape}"
        )
    return groups


def check_strides(
    strides: Any, window: Sequence[int], name: str = "strides"
) -> tuple[int, ...]:
    """One stride for each axis of the window, of one for all of them or one for each."""
    one = as_count(strides)
    if one is not None:
        strides = (one,) * len(window)
    counts = tuple(map(as_count, strides)) if isinstance(strides, Sequence) else ()
    valid = tuple(s for s in counts if s is not None and s >= 1)
    if not len(valid) == len(counts) == len(window):
        came = one if one is not None else strides
        raise ValueError(
            f"{name} is {came!r}; expected a positive int, or one for each of the "
            f"{len(window)} axes of the window {tuple(window)}"
        )
    return valid


def check_choice(value: Any, name: str, choices: Sequence[Any]) -> None:
    """Raises a ValueError unless `value` is one of `choices`, of the same type."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        expected = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}; expected {expected}")


def check_fraction(value: Any, name: str) -> float:
    """Returns `value` as a float, or raises a ValueError unless it is in (0, 1]."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and 0 < float(value) <= 1):
        raise ValueError(f"{name} is {value!r}; expected a number above 0, at most 1")
    return float(value)


def check_strength(strength: Any) -> None:
    """Raises a ValueError unless `strength` is a scalar, finite and not negative."""
    try:
        valid = np.ndim(strength) == 0 and 0 <= float(strength) < np.inf
    except (TypeError, ValueError):
        valid = False
    if not valid or isinstance(strength, str):
        raise ValueError(
            f"strength is {strength!r}; expected a finite number, 0 or larger, or a "
            "schedule of the number of updates"
        )
