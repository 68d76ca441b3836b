"""Which leaves of a parameter tree are conv kernels, and how they are read."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import chex
import jax
import jax.numpy as jnp

from convsim_jax._checks import (
    check_choice,
    check_groups,
    check_kernel,
    check_kernel_type,
)
from convsim_jax._doubts import warn_of_depthwise, warn_of_stacks
from convsim_jax._layers import ConvLayer, ConvLayers, layer_of_layout
from convsim_jax._paths import (
    Mask,
    has_path,
    leaves_by_path,
    map_leaves,
    mask_by_path,
    numbered,
    summary,
)

Layout = Literal["HWIO", "OIHW"]
GroupCounts: TypeAlias = int | Mapping[str, int]

# What a kernel is called without mask and layers, and its axes.
_NAMED: dict[str, tuple[str, str]] = {
    "HWIO": ("kernel", "(height, width, in, out)"),
    "OIHW": ("weight", "(out, in, height, width)"),
}


def conv_kernels(
    params: chex.ArrayTree,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
) -> dict[str, jax.Array]:
    """The conv kernels of a parameter tree, by path.

    With `layers` they are what the network convolves with. Without, and without a mask,
    they are the leaves of rank 4 that are called `kernel`, as in Flax, or `weight` where
    `layout="OIHW"`, as in Equinox and PyTorch. Names and ranks do not tell 1-D and 3-D
    kernels from others, nor stacked, transposed and unshared ones: `layers` does.

    Args:
      params: Tree of parameters, of any framework; its leaves are arrays or
        `jax.ShapeDtypeStruct`s, and `None` is passed over.
      mask: Tree of bools with the structure of `params` or a prefix of it, or a function
        that makes one from `params`, as optax has them. Exactly its True leaves count;
        with `layers`, those of them that `layers` has.
      layout: `"HWIO"` for leaves of shape `(*window, C, M)`, `"OIHW"` for
        `(M, C, *window)`; for 1 and 3 spatial axes alike. Not used with `layers`.
      layers: What `conv_layers` says of the network. Entries for leaves that an optax
        mask hides are passed over.

    Returns:
      The kernels as `{path: kernel}`, each in the layout `(*window, C, M)`, a stack of
      them with leading axes. An array that is under two paths has the first
      (under `jit` it is two arrays). A leaf that
      `layers` reads in two ways has a second entry, its path followed by `#2`.

    Raises:
      ValueError: No leaf is a conv kernel, the mask has another structure, a leaf that
        counts is no floating-point array of rank 3 to 5, `layout` is unknown, or `layers`
        names a leaf that `params` has not, or has in another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}}
      >>> {path: kernel.shape for path, kernel in conv_kernels(params).items()}
      {'conv/kernel': (3, 3, 1, 8)}
    """
    return choose_kernels(params, mask, layout, layers).distinct().read()


def conv_mask(
    params: chex.ArrayTree,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
) -> chex.ArrayTree:
    """Which leaves are conv kernels, as a tree of bools.

    For `optax.masked`, `optax.add_decayed_weights` and the like, which take the function
    itself as well.

    Args:
      params: Tree of parameters.
      mask: Tree of bools, or a function that makes one; see `conv_kernels`.
      layout: `"HWIO"` (Flax) or `"OIHW"` (Equinox, PyTorch); see `conv_kernels`.
      layers: What `conv_layers` says of the network.

    Returns:
      A tree with the structure of `params`: True for the leaves that are conv kernels.

    Raises:
      ValueError: As `conv_kernels`.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_mask({"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}})
      {'conv': {'bias': False, 'kernel': True}}
    """
    groups = 1 if layers is None else None  # they do not matter here
    leaves = choose_kernels(params, mask, layout, layers, groups).leaves
    return map_leaves(lambda path, _: path in leaves, params)


class Kernels(NamedTuple):
    """The conv kernels of a tree.

    Attributes:
      layers: What is known of each, by path; a leaf that is read in two ways has two.
      leaves: Those that the layers read, by path.
    """

    layers: dict[str, ConvLayer]
    leaves: dict[str, jax.Array]

    def read(self) -> dict[str, jax.Array]:
        """The kernels `(*stack, *window, C, M)`, abstract where the leaves are."""

        def read(layer: ConvLayer) -> jax.Array:
            leaf = self.leaves[layer.path]
            abstract = isinstance(leaf, jax.ShapeDtypeStruct)
            return jax.eval_shape(layer.read, leaf) if abstract else layer.read(leaf)

        return {name: read(layer) for name, layer in self.layers.items()}

    def distinct(self) -> "Kernels":
        """Without those whose array is under an earlier path as well."""
        first: dict[int, str] = {}
        for path, leaf in self.leaves.items():
            first.setdefault(id(leaf), path)
        leaves = {path: self.leaves[path] for path in first.values()}
        layers = {k: x for k, x in self.layers.items() if x.path in leaves}
        return Kernels(layers, leaves)


def choose_kernels(
    params: chex.ArrayTree,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
    feature_group_count: GroupCounts | None = None,
) -> Kernels:
    """The kernels that count: read as the network does, or by name, rank and mask."""
    check_choice(layout, "layout", get_args(Layout))
    tree = leaves_by_path(params)
    same: dict[int, Any] = {}  # an array that is under two paths stays one
    masked = None if mask is None else mask_by_path(mask, params, tree)
    if layers is None:
        looked_for = "leaves for which mask is True"
        if masked is None:
            name, shape = _NAMED[layout]
            looked_for = f"leaves named {name!r} of rank 4, {shape}"
            masked = {path: _is_named(name, path, leaf) for path, leaf in tree.items()}
            if layout == "HWIO":
                warn_of_stacks([path for path in tree if masked[path]], tree)
        leaves = {
            k: same.setdefault(id(x), _checked(x, k or "params"))
            for k, x in tree.items()
            if masked[k]
        }
        chosen = {k: layer_of_layout(k, x.shape, layout) for k, x in leaves.items()}
        if feature_group_count is None:
            warn_of_depthwise(chosen)
        chosen = _with_groups(chosen, feature_group_count, tree)
    else:
        looked_for = "the leaves of layers"
        if not isinstance(layers, ConvLayers):
            raise ValueError(f"layers is {layers!r}; expected what conv_layers returns")
        if feature_group_count is not None:
            raise ValueError(
                "feature_group_count is given beside layers, which have the groups"
            )
        times: Counter[str] = Counter()
        here = [x for x in _located(layers, tree) if masked is None or masked[x.path]]
        chosen = {numbered(layer.path, times): layer for layer in here}
        leaves = {
            x.path: same.setdefault(id(tree[x.path]), _checked_for(x, tree[x.path]))
            for x in here
        }
    if not chosen:
        raise ValueError(
            f"params has no conv kernel: looked for {looked_for}; found {summary(tree)}"
        )
    return Kernels(chosen, leaves)


def _is_named(name: str, path: str, leaf: Any) -> bool:
    return path.rpartition("/")[2] == name and getattr(leaf, "ndim", 0) == 4


def _checked(leaf: Any, name: str) -> Any:
    """A leaf that is a kernel, be it abstract, or an error if it cannot be one."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return check_kernel(leaf, name)
    check_kernel_type(leaf.shape, leaf.dtype, name)
    return leaf


def _checked_for(layer: ConvLayer, leaf: Any) -> Any:
    """The leaf that a layer reads, or an error if it cannot."""
    leaf = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)
    name = layer.path or "params"
    if leaf.shape != layer.leaf:
        raise ValueError(
            f"{name} has shape {leaf.shape} in params; layers has it of {layer.leaf}"
        )
    check_kernel_type(layer.kernel, leaf.dtype, name)
    return leaf


def _located(layers: ConvLayers, leaves: Mapping[str, Any]) -> Iterator[ConvLayer]:
    """The layers with their paths in this tree, without those whose leaf is hidden.

    The tree may be a part of the one that was traced, as Linen's params are of its
    variables: then what all paths begin with is dropped.
    """
    tops = {layer.path.partition("/")[0] for layer in layers}
    a_part = not any(has_path(leaves, layer.path) for layer in layers)
    for layer in layers:
        if len(tops) == 1 and a_part:
            layer = replace(layer, path=layer.path.partition("/")[2])
        if not has_path(leaves, layer.path):
            raise ValueError(
                f"layers names {layer.path!r}, which params has not; params has "
                f"{summary(leaves)}"
            )
        if leaves.get(layer.path) is not None:
            yield layer


def _with_groups(
    layers: Mapping[str, ConvLayer], given: GroupCounts | None, leaves: Mapping[str, Any]
) -> dict[str, ConvLayer]:
    """The layers with their numbers of groups, checked."""
    one = 1 if given is None else given
    by_path = one if isinstance(one, Mapping) else dict.fromkeys(layers, one)
    for path in by_path:
        if not has_path(leaves, path):
            raise ValueError(
                f"feature_group_count names {path!r}, which params has not; expected "
                f"paths among {', '.join(layers)}"
            )

    def with_groups(path: str, layer: ConvLayer) -> ConvLayer:
        count = by_path.get(path, 1)
        if isinstance(count, jax.Array):
            raise ValueError(
                "feature_group_count is an array; expected an int or {path: int}: with "
                "optax.inject_hyperparams, name it among the static_args"
            )
        kernel = jax.ShapeDtypeStruct(layer.kernel, float)
        return replace(layer, feature_group_count=check_groups(kernel, count, path))

    return {path: with_groups(path, layer) for path, layer in layers.items()}
