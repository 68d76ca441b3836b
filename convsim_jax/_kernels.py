"""Which leaves of a parameter tree are conv kernels, and how they are read."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np

from convsim_jax._checks import check_kernel
from convsim_jax._paths import leaves_by_path, path_of, summary

Layout = Literal["HWIO", "OIHW"]
Mask: TypeAlias = chex.ArrayTree | Callable[[chex.ArrayTree], chex.ArrayTree]

_LEAF_NAME: dict[str, str] = {"HWIO": "kernel", "OIHW": "weight"}
_SHAPES: dict[str, str] = {
    "HWIO": "(height, width, in, out)",
    "OIHW": "(out, in, height, width)",
}


def conv_kernels(
    params: chex.ArrayTree, *, mask: Mask | None = None, layout: Layout = "HWIO"
) -> dict[str, jax.Array]:
    """The conv kernels of a parameter tree, by path.

    Without a mask they are the leaves of rank 4 that are called `kernel`, as in Flax, or
    `weight` where `layout="OIHW"`, as in Equinox and PyTorch. Kernels of rank 3 and 5
    count only where a mask says so: an attention layer's `kernel` has rank 3 too, and
    one of rank 5 is a 3-D conv or a scanned stack of 2-D ones. Flax's `ConvLocal`, which
    shares no weights, and `ConvTranspose(transpose_kernel=True)`, whose last two axes are
    swapped, have a `kernel` of rank 4 that is none of these: leave it out by a mask.

    Args:
      params: Tree of parameters: Flax Linen's dicts, NNX state, an Equinox module, or any
        other pytree. `None` leaves are passed over.
      mask: Tree of bools with the structure of `params` or a prefix of it, or a function
        that makes one from `params`, as optax has them. Exactly its True leaves count.
      layout: `"HWIO"` for leaves of shape `(*window, C, M)`, `"OIHW"` for
        `(M, C, *window)`; for 1 and 3 spatial axes alike.

    Returns:
      The kernels as `{path: kernel}` in the order of the tree, each in the layout
      `(*window, C, M)`.

    Raises:
      ValueError: No leaf is a conv kernel, the mask has another structure, a leaf that
        counts is no floating-point array of rank 3 to 5, or `layout` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}}
      >>> {path: kernel.shape for path, kernel in conv_kernels(params).items()}
      {'conv/kernel': (3, 3, 1, 8)}
    """
    leaves = kernel_leaves(params, mask, layout)
    return {path: from_layout(leaf, layout) for path, leaf in leaves.items()}


def conv_mask(
    params: chex.ArrayTree, *, mask: Mask | None = None, layout: Layout = "HWIO"
) -> chex.ArrayTree:
    """Which leaves of a parameter tree are conv kernels, as a tree of bools.

    For `optax.masked`, `optax.add_decayed_weights` and the like, which take it as it is,
    as a function of the parameters.

    Args:
      params: See `conv_kernels`.
      mask: See `conv_kernels`.
      layout: See `conv_kernels`.

    Returns:
      Tree of the structure of `params`, True for the leaves that `conv_kernels` returns.

    Raises:
      ValueError: As `conv_kernels`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}}
      >>> conv_mask(params)
      {'conv': {'bias': False, 'kernel': True}}
      >>> decay = optax.add_decayed_weights(1e-4, mask=conv_mask)
    """
    found = kernel_leaves(params, mask, layout)
    return jax.tree_util.tree_map_with_path(
        lambda key_path, leaf: path_of(key_path) in found, params
    )


def kernel_leaves(
    params: chex.ArrayTree, mask: Mask | None, layout: Layout
) -> dict[str, jax.Array]:
    """`conv_kernels` in the layout in which the tree has them."""
    if layout not in get_args(Layout):
        raise ValueError(f"layout is {layout!r}; expected 'HWIO' or 'OIHW'")
    leaves = leaves_by_path(params)
    if mask is None:
        name = _LEAF_NAME[layout]
        counts = {
            path: path.rpartition("/")[2] == name and getattr(leaf, "ndim", 0) == 4
            for path, leaf in leaves.items()
        }
        looked_for = f"leaves named {name!r} of rank 4, {_SHAPES[layout]}"
    else:
        counts = _mask_of_leaves(mask(params) if callable(mask) else mask, leaves)
        looked_for = "leaves for which mask is True"
    kernels = {
        path: check_kernel(leaf, name=path or "params")
        for path, leaf in leaves.items()
        if counts[path]
    }
    if not kernels:
        raise ValueError(
            f"params has no conv kernel: looked for {looked_for}; found {summary(leaves)}"
        )
    return kernels


def from_layout(leaf: jax.Array, layout: Layout) -> jax.Array:
    """A leaf as a kernel of shape `(*window, C, M)`."""
    return leaf if layout == "HWIO" else jnp.moveaxis(leaf, (0, 1), (-1, -2))


def to_layout(kernel: jax.Array, layout: Layout) -> jax.Array:
    """The inverse of `from_layout`."""
    return kernel if layout == "HWIO" else jnp.moveaxis(kernel, (-1, -2), (0, 1))


def _mask_of_leaves(mask: chex.ArrayTree, leaves: Mapping[str, Any]) -> dict[str, bool]:
    """The mask's value for every leaf: its own, or that of the subtree it is in."""
    values = leaves_by_path(mask)

    def overlap(path: str, leaf: str) -> bool:
        """Whether one is the other or inside it; only a hidden leaf has an inside."""
        return (
            path in ("", leaf)
            or leaf.startswith(f"{path}/")
            or (leaves[leaf] is None and path.startswith(f"{leaf}/"))
        )

    for path, value in values.items():
        if not any(overlap(path, leaf) for leaf in leaves):
            raise ValueError(
                f"mask has a leaf {path!r} that params has not; expected the structure "
                f"of params or a prefix of it; params has {summary(leaves)}"
            )
        if value is not None and not isinstance(value, bool | np.bool):
            raise ValueError(f"mask has {value!r} at {path!r}; expected True or False")

    def value_of(path: str) -> bool:
        prefix = path
        while prefix not in values:
            if not prefix:
                raise ValueError(
                    f"mask has no leaf for {path!r}; expected the structure of params or "
                    f"a prefix of it; mask has {summary(values)}"
                )
            prefix = prefix.rpartition("/")[0]
        return bool(values[prefix])

    return {path: leaf is not None and value_of(path) for path, leaf in leaves.items()}
