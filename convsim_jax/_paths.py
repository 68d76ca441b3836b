"""Leaves of a parameter tree by path, a string such as `"Conv_0/kernel"`.

NNX ends the path of a parameter in `.value` in some trees and not in others of the same
model: it is left out, so that what is made from one fits the other.
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax


def leaves_by_path(tree: chex.ArrayTree) -> dict[str, Any]:
    """The leaves of a tree by path; None where an optax mask or a None hides one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_hidden)
    return {
        path_of(key_path): None if is_hidden(leaf) else leaf for key_path, leaf in leaves
    }


def map_leaves(
    function: Callable[[Any, Any], Any],
    tree: chex.ArrayTree,
    by_path: Mapping[str, Any],
) -> chex.ArrayTree:
    """Maps `function(leaf, by_path[path])` over the leaves that `by_path` names."""

    def mapped(key_path: tuple, leaf: Any) -> Any:
        path = path_of(key_path)
        if path in by_path and not is_hidden(leaf):
            return function(leaf, by_path[path])
        return leaf

    return jax.tree_util.tree_map_with_path(mapped, tree, is_leaf=is_hidden)


def is_hidden(leaf: Any) -> bool:
    """Whether there is None or an `optax.MaskedNode`, an empty named tuple."""
    return leaf is None or (isinstance(leaf, tuple) and leaf == ())


def path_of(key_path: tuple) -> str:
    """A key path of `jax.tree_util` as a string."""
    if len(key_path) > 1 and key_path[-1] == jax.tree_util.GetAttrKey("value"):
        key_path = key_path[:-1]
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


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
