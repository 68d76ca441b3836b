"""What a network does with each of its conv kernels: what `conv_layers` finds out."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax

from convsim_jax._similarity import Geometry
from convsim_jax._table import aligned_table


@dataclasses.dataclass(frozen=True)
class ConvLayer:
    """One conv kernel of a network and what is done with it; hashable, no array inside.

    Attributes:
      path: Where the kernel is in the tree of parameters.
      leaf: Shape of that leaf.
      layout: What the axes of the leaf are: `D`, `H`, `W` the window, `I` and `O` input
        and output channels, `L` a stack of kernels, such as the layers of a scan. Two
        letters in brackets share an axis; a letter that is there twice has two axes.
      stack: Sizes of the axes `L`; empty for a single kernel.
      kernel: Shape of one kernel, `(*window, C, M)`, C input channels a group.
      feature_group_count: Number of groups.
      strides: Of the window, or of the input's dilation where `transposed`.
      dilation: Of the kernel.
      transposed: Whether the convolution dilates its input.
      applications: How many convolutions with this leaf the network computes: three, for
        a scanned stack of three. A `while` loop counts as one pass.
      inputs: Shape of what is convolved, `(batch, *spatial, channels)`.
      outputs: Shape of the result, `(batch, *spatial, M)`.
    """

    path: str
    leaf: tuple[int, ...]
    layout: str
    stack: tuple[int, ...]
    kernel: tuple[int, ...]
    # The leaf reshaped to `_factors`, its axes in the `_order`, is the stack of kernels.
    _factors: tuple[int, ...] = dataclasses.field(repr=False)
    _order: tuple[int, ...] = dataclasses.field(repr=False)
    feature_group_count: int = 1
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    applications: int = 1
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()

    @property
    def geometry(self) -> Geometry:
        """What the similarity depends on: dilation spreads the lags of the kernel."""
        pairs = zip(self.strides, self.dilation, strict=True)
        strides = tuple(s // math.gcd(s, d) for s, d in pairs)
        return Geometry(
            self.feature_group_count,
            strides if any(s > 1 for s in strides) else (),
            self.transposed and any(s > 1 for s in strides),
        )

    def read(self, leaf: Any) -> Any:
        """The leaf, of JAX or NumPy, as kernels `(*stack, *window, C, M)`."""
        shape = (*self.stack, *self.kernel)
        if self._order == tuple(sorted(self._order)):
            return leaf if leaf.shape == shape else leaf.reshape(shape)
        return leaf.reshape(self._factors).transpose(self._order).reshape(shape)

    def write(self, kernels: jax.Array) -> jax.Array:
        """The inverse of `read`."""
        factors = kernels.reshape([self._factors[axis] for axis in self._order])
        inverse = sorted(range(len(self._order)), key=self._order.__getitem__)
        return factors.transpose(inverse).reshape(self.leaf)


@dataclasses.dataclass(frozen=True)
class ConvLayers:
    """What `conv_layers` returns; its `str` is an aligned table.

    Attributes:
      layers: A `ConvLayer` for each kernel, in order of use. A leaf that is read in two
        ways, such as that of an autoencoder with tied weights, has one for each.
      left_out: Of each convolution whose kernel depends on parameters and is not among
        the layers, why.
    """

    layers: tuple[ConvLayer, ...]
    left_out: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ConvLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __str__(self) -> str:
        header = ["kernel", "layout", "stack", "shape", "groups", "stride", "dilation"]
        header += ["times", "in", "out"]
        rows = [
            [
                layer.path,
                layer.layout,
                sizes(layer.stack) or "-",
                sizes(layer.kernel),
                str(layer.feature_group_count),
                ("1/" if layer.transposed else "") + _one_or_all(layer.strides),
                _one_or_all(layer.dilation),
                str(layer.applications),
                sizes(layer.inputs),
                sizes(layer.outputs),
            ]
            for layer in self.layers
        ]
        left_out = [f"left out: {reason}" for reason in self.left_out]
        return "\n".join([aligned_table(header, rows), *left_out])


def layer_of_layout(path: str, leaf: tuple[int, ...], layout: str) -> ConvLayer:
    """A kernel of which nothing is known but its layout, `"HWIO"` or `"OIHW"`."""
    axes = tuple(range(len(leaf)))
    order = axes if layout == "HWIO" else (*axes[2:], 1, 0)
    kernel = tuple(leaf[axis] for axis in order)
    return ConvLayer(path, leaf, layout, (), kernel, _factors=leaf, _order=order)


def sizes(shape: tuple[int, ...]) -> str:
    """A shape as text.

    >>> sizes((3, 3, 16))
    '3x3x16'
    """
    return "x".join(map(str, shape))


def _one_or_all(numbers: tuple[int, ...]) -> str:
    return sizes(numbers[:1] if len(set(numbers)) == 1 else numbers)
