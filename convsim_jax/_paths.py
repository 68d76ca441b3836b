"""Leaves of a parameter tree by path, a string such as `"Conv_0/kernel"`.

NNX ends the path of a parameter in `.value` in some trees and not in others of the same
model: it is left out, so that what is made from one fits the other.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import chex
import jax
import numpy as np

Mask: TypeAlias = chex.ArrayTree | Callable[[chex.ArrayTree], chex.ArrayTree]


def leaves_by_path(tree: chex.ArrayTree) -> dict[str, Any]:
    """The leaves of a tree by path; None where an optax mask or a None hides one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_hidden)
    return {
        path_of(key_path): None if is_hidden(leaf) else leaf for key_path, leaf in leaves
    }


def map_leaves(
    function: Callable[[str, Any], Any], tree: chex.ArrayTree
) -> chex.ArrayTree:
    """Maps `function(path, leaf)` over a tree; what is hidden stays so."""

    def mapped(key_path: tuple, leaf: Any) -> Any:
        return leaf if is_hidden(leaf) else function(path_of(key_path), leaf)

    return jax.tree_util.tree_map_with_path(mapped, tree, is_leaf=is_hidden)


def is_hidden(leaf: Any) -> bool:
    """Whether there is None or an `optax.MaskedNode`, an empty named tuple."""
    return leaf is None or (isinstance(leaf, tuple) and leaf == ())


def path_of(key_path: tuple) -> str:
    """A key path of `jax.tree_util` as a string."""
    if len(key_path) > 1 and key_path[-1] == jax.tree_util.GetAttrKey("value"):
        key_path = key_path[:-1]
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def has_path(leaves: Mapping[str, Any], path: str) -> bool:
    """Whether a leaf has this path, or is hidden with what it is inside of."""
    above = (other for other in upwards(path) if other in leaves)
    nearest = next(above, None)
    return nearest == path or (nearest is not None and leaves[nearest] is None)


def upwards(path: str) -> Iterator[str]:
    """The path, that of what it is in, and so on to the tree itself."""
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path


def mask_by_path(
    mask: Mask, params: chex.ArrayTree, leaves: Mapping[str, Any]
) -> dict[str, bool]:
    """The mask's value for every leaf: its own, or that of the subtree it is in."""
    parts = jax.tree.leaves(mask)
    # As optax has it: a mask may be a tree that can be called, such as a module.
    is_function = bool(parts) and all(map(callable, parts))
    values = leaves_by_path(mask(params) if is_function else mask)
    inner = {path for leaf in leaves for path in upwards(leaf)}
    for path, value in values.items():
        if path not in inner and not has_path(leaves, path):
            raise ValueError(
                f"mask has a leaf {path!r} that params has not; expected the structure "
                f"of params or a prefix of it; params has {summary(leaves)}"
            )
        if value is not None and not isinstance(value, bool | np.bool):
            raise ValueError(f"mask has {value!r} at {path!r}; expected True or False")

    def value_of(path: str) -> bool:
        for above in upwards(path):
            if above in values:
                return bool(values[above])
        raise ValueError(
            f"mask has no leaf for {path!r}; expected the structure of params or a "
            f"prefix of it; mask has {summary(values)}"
        )

    return {path: leaf is not None and value_of(path) for path, leaf in leaves.items()}


def numbered(path: str, times: Counter[str]) -> str:
    """The path, counted in `times`: the second time it is `path#2`."""
    times[path] += 1
    return path if times[path] == 1 else f"{path}#{times[path]}"


def summary(leaves: Mapping[str, Any], most: int = 8) -> str:
    """Paths with shapes, at most a few of them."""
    if not leaves:
        return "no leaves at all"
    parts = [
        f"{path or '(the tree itself)'} {getattr(leaf, 'shape', repr(leaf))}"
        for path, leaf in leaves.items()
    ]
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more
