"""Kernels on a mesh with Explicit axes."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec


def in_auto_axes(
    function: Callable, kernel: jax.Array, out_specs: Any, *arguments: jax.Array
) -> Any:
    """`function(kernel, *arguments)`, with shardings left to XLA inside.

    Explicit axes have no rule for the padding of a sharded axis, for one. Shardings of
    the results are what `out_specs` makes of the kernel's.
    """
    sharding = jax.typeof(kernel).sharding
    if AxisType.Explicit not in (sharding.mesh.axis_types or ()):
        return function(kernel, *arguments)
    in_auto = jax.sharding.auto_axes(function, out_sharding=out_specs(sharding.spec))
    return in_auto(kernel, *arguments)


def replicated(spec: PartitionSpec) -> PartitionSpec:
    """The same on every device, whatever the kernel's sharding is."""
    return PartitionSpec()
