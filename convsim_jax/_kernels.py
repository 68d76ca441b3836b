"""Which leaves of a parameter tree are conv kernels, and how they are read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

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
    summary,
)

Layout = Literal["HWIO", "OIHW"]
GroupCounts: TypeAlias = int | Mapping[str, int]

_LEAF_NAME: dict[str, str] = {"HWIO": "kernel", "OIHW": "weight"}
_SHAPES: dict[str, str] = {
    "HWIO": "(height, width, in, out)",
    "OIHW": "(out, in, height, width)",
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
    `layout="OIHW"`, as in Equinox and PyTorch: then kernels of rank 3 and 5 count only
    where a mask says so, as an attention layer's `kernel` has rank 3 too, and one of rank
    5 is a 3-D conv or a scanned stack of 2-D ones. Flax's `ConvLocal`, which shares no
    weights, and `ConvTranspose(transpose_kernel=True)`, whose last two axes are swapped,
    have a `kernel` of rank 4 that is none of these. `layers` tells them apart.

    Args:
      params: Tree of parameters: Flax Linen's dicts, NNX state, an Equinox module, or any
        other pytree, its leaves arrays or `jax.ShapeDtypeStruct`s. `None` leaves are
        passed over.
      mask: Tree of bools with the structure of `params` or a prefix of it, or a function
        that makes one from `params`, as optax has them. Exactly its True leaves count;
        with `layers`, those of them that `layers` has.
      layout: `"HWIO"` for leaves of shape `(*window, C, M)`, `"OIHW"` for
        `(M, C, *window)`; for 1 and 3 spatial axes alike. Not used with `layers`.
      layers: What `conv_layers` says of the network: which leaves are kernels, where
        their axes are, and for the functions of a whole network their groups and
        strides. Entries for leaves that an optax mask hides are passed over.

    Returns:
      The kernels as `{path: kernel}`, each in the layout `(*window, C, M)`, a stack of
      them with leading axes. An array that is under two paths has the first. A leaf that
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
    chosen, leaves = choose_layers(params, mask, layout, layers)
    return read_kernels(distinct(chosen, leaves), leaves)


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
      params: As in `conv_kernels`.
      mask: As in `conv_kernels`.
      layout: As in `conv_kernels`.
      layers: As in `conv_kernels`.

    Returns:
      A tree with the structure of `params`: True for the leaves that `conv_kernels` finds
      with these arguments.

    Raises:
      ValueError: As `conv_kernels`.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_mask({"conv": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.ones(8)}})
      {'conv': {'bias': False, 'kernel': True}}
    """
    groups = 1 if layers is None else None  # they do not matter here
    chosen, _ = choose_layers(params, mask, layout, layers, groups)
    counting = {layer.path for layer in chosen.values()}
    return map_leaves(lambda path, _: path in counting, params)


def choose_layers(
    params: chex.ArrayTree,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
    feature_group_count: GroupCounts | None = None,
) -> tuple[dict[str, ConvLayer], dict[str, jax.Array]]:
    """The layers that count, by path, and the leaves that they read, by path."""
    check_choice(layout, "layout", get_args(Layout))
    if layers is not None and not isinstance(layers, ConvLayers):
        raise ValueError(f"layers is {layers!r}; expected what conv_layers returns")
    if layers is not None and feature_group_count is not None:
        raise ValueError(
            "feature_group_count is given beside layers, which have the groups already"
        )
    leaves = leaves_by_path(params)
    masked = None if mask is None else mask_by_path(mask, params, leaves)
    if layers is not None:
        looked_for = "the leaves of layers"
        here = _of_this_tree(layers, leaves)
        chosen = _named(x for x in here if masked is None or masked[x.path])
        leaves |= {x.path: _checked(leaves[x.path], x.path, x) for x in chosen.values()}
    else:
        looked_for = "leaves for which mask is True"
        if masked is None:
            name = _LEAF_NAME[layout]
            looked_for = f"leaves named {name!r} of rank 4, {_SHAPES[layout]}"
            masked = {path: _is_named(name, path, leaf) for path, leaf in leaves.items()}
            if layout == "HWIO":
                warn_of_stacks([path for path in leaves if masked[path]], leaves)
        leaves |= {path: _checked(leaves[path], path) for path in leaves if masked[path]}
        chosen = {
            path: layer_of_layout(path, leaf.shape, layout)
            for path, leaf in leaves.items()
            if masked[path]
        }
        if feature_group_count is None:
            warn_of_depthwise(chosen)
        chosen = _with_groups(chosen, feature_group_count, leaves)
    if not chosen:
        raise ValueError(
            f"params has no conv kernel: looked for {looked_for}; found {summary(leaves)}"
        )
    return chosen, {layer.path: leaves[layer.path] for layer in chosen.values()}


def read_kernels(
    layers: Mapping[str, ConvLayer], leaves: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """The kernels of the layers, abstract where the leaves are."""

    def read(layer: ConvLayer) -> jax.Array:
        leaf = leaves[layer.path]
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        return jax.eval_shape(layer.read, leaf) if abstract else layer.read(leaf)

    return {name: read(layer) for name, layer in layers.items()}


def distinct(
    layers: Mapping[str, ConvLayer], leaves: Mapping[str, jax.Array]
) -> dict[str, ConvLayer]:
    """The layers without those whose array is under an earlier path as well."""
    first: dict[int, str] = {}
    for path, leaf in leaves.items():
        first.setdefault(id(leaf), path)
    return {
        name: layer
        for name, layer in layers.items()
        if first[id(leaves[layer.path])] == layer.path
    }


def _is_named(name: str, path: str, leaf: Any) -> bool:
    return path.rpartition("/")[2] == name and getattr(leaf, "ndim", 0) == 4


def _checked(leaf: Any, path: str, layer: ConvLayer | None = None) -> Any:
    """A leaf that counts: an array, or what stands for one."""
    name, abstract = path or "params", isinstance(leaf, jax.ShapeDtypeStruct)
    if layer is not None:
        leaf = leaf if abstract else jnp.asarray(leaf)
        if leaf.shape != layer.leaf:
            raise ValueError(
                f"{name} has shape {leaf.shape} in params; layers has it of {layer.leaf}"
            )
        check_kernel_type(layer.kernel, leaf.dtype, name)
    elif abstract:
        check_kernel_type(leaf.shape, leaf.dtype, name)
    else:
        leaf = check_kernel(leaf, name)
    return leaf


def _of_this_tree(layers: ConvLayers, leaves: Mapping[str, Any]) -> Iterator[ConvLayer]:
    """The layers with their paths in this tree, without those whose leaf is hidden.

    The tree may be a part of the one that was traced, as Linen's params are of its
    variables: then what all paths begin with is dropped.
    """
    found = list(layers)
    first = {layer.path.partition("/")[0] for layer in layers}
    if len(first) == 1 and not any(has_path(leaves, layer.path) for layer in layers):
        found = [replace(x, path=x.path.partition("/")[2]) for x in layers]
    for layer in found:
        if not has_path(leaves, layer.path):
            raise ValueError(
                f"layers names {layer.path!r}, which params has not; params has "
                f"{summary(leaves)}"
            )
        if leaves.get(layer.path) is not None:
            yield layer


def _named(layers: Iterable[ConvLayer]) -> dict[str, ConvLayer]:
    """By path; the second reading of a leaf has `#2` behind it."""
    named: dict[str, ConvLayer] = {}
    readings: Counter[str] = Counter()
    for layer in layers:
        readings[layer.path] += 1
        again = f"#{readings[layer.path]}" if readings[layer.path] > 1 else ""
        named[layer.path + again] = layer
    return named


def _with_groups(
    layers: Mapping[str, ConvLayer], given: GroupCounts | None, leaves: Mapping[str, Any]
) -> dict[str, ConvLayer]:
    """The layers with their numbers of groups, checked."""
    if isinstance(given, Mapping):
        for path in given:
            if not has_path(leaves, path):
                raise ValueError(
                    f"feature_group_count names {path!r}, which params has not; expected "
                    f"paths among {', '.join(layers)}"
                )
        counts = {path: given.get(path, 1) for path in layers}
    else:
        counts = dict.fromkeys(layers, 1 if given is None else given)
    for path, count in counts.items():
        if isinstance(count, jax.Array):
            raise ValueError(
                "feature_group_count is an array; expected an int or {path: int}: with "
                "optax.inject_hyperparams, name it among the static_args"
            )
        check_groups(jax.ShapeDtypeStruct(layers[path].kernel, float), count, path)
    return {
        path: replace(layer, feature_group_count=int(counts[path]))
        for path, layer in layers.items()
    }
