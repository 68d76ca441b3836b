"""Reads from a traced network what it does with each of its conv kernels."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
from jax.extend.core import ClosedJaxpr

from convsim_jax._layers import ConvLayer, ConvLayers, sizes
from convsim_jax._paths import is_hidden, path_of
from convsim_jax._trace import Convolution, convolutions, shape_of

_WINDOW = {1: "W", 2: "HW", 3: "DHW"}


def conv_layers(
    apply: Callable[..., Any], params: chex.ArrayTree, *args: Any, **kwargs: Any
) -> ConvLayers:
    """What a network does with each of its conv kernels.

    `apply(params, *args, **kwargs)` is traced, nothing is computed, and the kernel of
    each convolution in it is followed back to the leaf of `params` that it comes from.
    On the way it may be cast, reshaped, transposed and reversed, and multiplied, shifted
    and masked by anything that is smaller than itself or no parameter, as weight
    normalization does. A kernel that is made of several leaves of one size, or by a
    product of matrices, is left out, which the table says.

    `apply` is `model.apply` of Linen, `lambda model, x: model(x)` of NNX,
    `lambda model, x: jax.vmap(model)(x)` of Equinox, `transformed.apply` of Haiku, and
    `model.stateless_call` of Keras 3; the layers of Linen's variables serve its params.

    Args:
      apply: A function of `params`, of any framework.
      params: Tree whose leaves the kernels are looked for among: preferably the tree that
        the optimizer sees. Leaves that are no arrays stay as they are.
      *args: Further arguments, such as images. Arrays may be `jax.ShapeDtypeStruct`s,
        here and in `params`; what is no array is passed as it is.
      **kwargs: As `args`.

    Returns:
      `ConvLayers`, to be given as `layers=` to all functions of a network.

    Raises:
      ValueError: No convolution has a kernel that comes from `params`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> images = jnp.ones((1, 8, 8, 4))
      >>> model = nn.Conv(8, (3, 3), strides=2, feature_group_count=4)
      >>> params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
      >>> apply = lambda params, x: model.apply({"params": params}, x)
      >>> print(conv_layers(apply, params, images))
      kernel  layout  stack    shape  groups  stride  dilation  times       in      out
      kernel    HWIO      -  3x3x1x8       4       2         1      1  1x8x8x4  1x4x4x8
    """
    found: dict[ConvLayer, ConvLayer] = {}
    left_out = []
    for _, layer in uses(trace(apply, params, args, kwargs)):
        if isinstance(layer, str):
            left_out.append(layer)
            continue
        use = dataclasses.replace(layer, applications=0, inputs=(), outputs=())
        earlier = found.get(use)
        if earlier is not None:
            times = earlier.applications + layer.applications
            layer = dataclasses.replace(earlier, applications=times)
        found[use] = layer
    if not found:
        raise ValueError(
            "apply has no convolution whose kernel comes from a leaf of params"
            + "".join(f"; left out: {reason}" for reason in left_out)
        )
    return ConvLayers(tuple(found.values()), tuple(left_out))


class Traced(NamedTuple):
    """A network's program, whose arguments are the arrays: parameters, then others."""

    program: ClosedJaxpr
    arrays: list[Any]
    paths: list[str]  # of the parameters
    output: Any  # what the network returns, in shapes


def trace(apply: Callable[..., Any], params: Any, args: Any, kwargs: Any) -> Traced:
    """Traces `apply(params, *args, **kwargs)`; what is no array is passed as it is."""
    with_paths = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_hidden)
    paths = [path_of(key_path) for key_path, leaf in with_paths if _is_array(leaf)]
    leaves, treedef = jax.tree.flatten((params, args, kwargs), is_leaf=is_hidden)
    arrays = list(filter(_is_array, leaves))

    def from_arrays(arrays: list[Any]) -> Any:
        remaining = iter(arrays)
        full = [next(remaining) if _is_array(leaf) else leaf for leaf in leaves]
        params, args, kwargs = jax.tree.unflatten(treedef, full)
        return apply(params, *args, **kwargs)

    program, output = jax.make_jaxpr(from_arrays, return_shape=True)(arrays)
    return Traced(program, arrays, paths, output)


def uses(traced: Traced) -> list[tuple[Convolution, ConvLayer | str]]:
    """Each convolution and its layer, or why it has none."""
    shapes = [x.shape for x in traced.program.in_avals]
    return [
        (convolution, _layer_of(convolution, traced.paths, shapes))
        for convolution in convolutions(traced.program, len(traced.paths))
    ]


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _layer_of(
    convolution: Convolution, paths: list[str], shapes: list[tuple[int, ...]]
) -> ConvLayer | str:
    """The layer, or why there is none."""
    equation, origin = convolution.equation, convolution.kernel
    params = equation.params
    image, kernel, result = map(shape_of, [*equation.invars, *equation.outvars])
    lhs, rhs, out = params["dimension_numbers"]
    here = f"a convolution of {sizes(image)} with a kernel of {sizes(kernel)}"
    if len(rhs) - 2 not in _WINDOW:
        return f"{here}: expected 1 to 3 spatial axes"
    transposed = any(n > 1 for n in params["lhs_dilation"])
    if transposed and any(n > 1 for n in params["window_strides"]):
        return f"{here}: it dilates its input and has strides as well"
    if origin.leaf is None or None in origin.axes:
        return f"{here}: it comes from several leaves of params, or from parts of one"
    path, leaf = paths[origin.leaf], shapes[origin.leaf]
    order = (*rhs[2:], rhs[1], rhs[0])
    stack = sorted(origin.stack, key=lambda factor: -factor[1])
    axes = [(factor,) for factor in stack] + [origin.axes[axis] or () for axis in order]
    letters = "L" * len(stack) + _WINDOW[len(rhs) - 2] + "IO"
    # From the leaf's first axis to its last, what it is divided into.
    factors = sorted(
        (
            (stride, size, letter)
            for axis, letter in zip(axes, letters, strict=True)
            for size, stride in axis
        ),
        reverse=True,
    )
    if math.prod(size for _, size, _ in factors) != math.prod(leaf):
        return f"{here}: it is not the whole of {path}, of shape {sizes(leaf)}"
    strides = [stride for stride, _, _ in factors]
    return ConvLayer(
        path=path,
        leaf=leaf,
        layout=_layout(leaf, factors, letters),
        stack=tuple(size for size, _ in stack),
        kernel=tuple(kernel[axis] for axis in order),
        feature_group_count=params["feature_group_count"] * params["batch_group_count"],
        strides=tuple(params["lhs_dilation" if transposed else "window_strides"]),
        dilation=tuple(params["rhs_dilation"]),
        transposed=transposed,
        applications=convolution.times,
        inputs=tuple(image[axis] for axis in (lhs[0], *lhs[2:], lhs[1])),
        outputs=tuple(result[axis] for axis in (out[0], *out[2:], out[1])),
        _factors=tuple(size for _, size, _ in factors),
        _order=tuple(strides.index(stride) for axis in axes for _, stride in axis),
    )


def _layout(
    leaf: tuple[int, ...], factors: list[tuple[int, int, str]], letters: str
) -> str:
    """A letter for each axis of the leaf."""
    # Axes of size 1 have no factor: they get the letters that are left, in order.
    unused = iter(x for x in letters if x not in [letter for *_, letter in factors])
    layout = ""
    for axis, n in enumerate(leaf):
        stride = math.prod(leaf[axis + 1 :])
        here = dict.fromkeys(
            letter
            for other, size, letter in factors
            if other < stride * n and stride < other * size
        )
        joined = "".join(here) or next(unused, "1")
        layout += f"({joined})" if len(joined) > 1 else joined
    return layout
