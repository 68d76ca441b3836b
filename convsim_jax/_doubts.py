"""Warnings of what parameters alone do not say, with the way out."""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convsim_jax._layers import ConvLayer
from convsim_jax._paths import upwards

_WAY_OUT = "give layers=convsim_jax.conv_layers(apply, params, images)"


def warn_of_depthwise(layers: Mapping[str, ConvLayer]) -> None:
    """Several kernels of one input channel are likely those of depthwise convolutions."""
    paths = [path for path, x in layers.items() if x.kernel[-2] == 1 < x.kernel[-1]]
    if len(paths) > 1:
        warnings.warn(
            f"kernels of one input channel count as ungrouped: {_few(paths)}. If they "
            f"are depthwise, {_WAY_OUT}, or feature_group_count",
            stacklevel=2,
        )


def warn_of_stacks(paths: Sequence[str], leaves: Mapping[str, Any]) -> None:
    """A `kernel` of rank 4 may be a stack of rank 3, of scanned attention layers.

    Then the nearest biases and scales have an axis as long as its first as well.
    """
    vectors: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for path, leaf in leaves.items():
        scope, _, name = path.rpartition("/")
        if leaf is not None and name in ("bias", "scale"):
            for above in upwards(scope):
                vectors[above].append(np.shape(leaf))

    def is_in_stack(path: str) -> bool:
        scopes = upwards(path.rpartition("/")[0])
        near = next((vectors[scope] for scope in scopes if scope in vectors), [(0,)])
        return all(len(s) > 1 and s[0] == leaves[path].shape[0] for s in near)

    stacked = list(filter(is_in_stack, paths))
    if stacked:
        warnings.warn(
            "leaves of rank 4 count as kernels but look like stacks of rank 3, as of a "
            f"scanned attention layer: {_few(stacked)}. If they are, {_WAY_OUT}, or mask",
            stacklevel=2,
        )


def _few(paths: Sequence[str], most: int = 4) -> str:
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + more
