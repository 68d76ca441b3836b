"""The feature maps of a network, of any framework, beside its output."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax

from convsim_jax._conv_layers import trace, uses
from convsim_jax._layers import ConvLayer
from convsim_jax._paths import numbered
from convsim_jax._taps import evaluate


def with_feature_maps(
    apply: Callable[..., Any],
    *,
    layers: Iterable[ConvLayer] | None = None,
    stop_gradient: bool = False,
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """The same function, which returns the maps of its conv layers as well.

    The function is traced and its program evaluated, under `jit`, `grad` and `vmap` too.
    Layers may be inside `jit`, `checkpoint`, `scan` and `cond`; those of a branch that is
    not taken have maps of zeros.

    Args:
      apply: A function of parameters and more, as in `conv_layers`.
      layers: What `conv_layers` returns, or some of it: the layers whose maps to return.
        By default all whose kernel comes from the parameters.
      stop_gradient: Stop the gradient of the maps at each layer's input, so that a layer
        answers for its own kernel alone. That of the output is not changed.

    Returns:
      A function of the same arguments. It returns the output and, by the path that
      `conv_layers` gives to its kernel, the maps of each layer in order of use: what its
      convolution puts out, with its bias, before any normalization or activation, of
      shape `(batch, *spatial, M)`. A kernel that is applied again, or scanned, has an
      entry for each time: `"conv/kernel"`, `"conv/kernel#2"` and so on; those of a scan
      stand together, by its index.

    Raises:
      ValueError: When called, if no convolution has a kernel that comes from the
        parameters, or a layer is inside a `while` loop, `shard_map` or a function with
        derivatives of its own that does more than convolve; `layers` can leave it out.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import linen as nn
      >>> model = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(8, (3, 3))])
      >>> images = jnp.ones((2, 16, 16, 3))
      >>> variables = model.init(jax.random.key(0), images)
      >>> output, maps = with_feature_maps(model.apply)(variables, images)
      >>> for path, f in maps.items():
      ...     print(path, f.shape)
      params/layers_0/kernel (2, 16, 16, 4)
      params/layers_2/kernel (2, 16, 16, 8)
    """
    wanted = None if layers is None else {layer.path for layer in layers}

    def with_maps(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, jax.Array]]:
        params, *others = args
        traced = trace(apply, params, others, kwargs)
        labels: Counter[str] = Counter()
        taken = [
            (convolution.position, layer.path, numbered(layer.path, labels))
            for convolution, layer in uses(traced)
            if isinstance(layer, ConvLayer) and (wanted is None or layer.path in wanted)
        ]
        if not taken:
            raise ValueError(
                "apply has no convolution whose kernel comes from a leaf of params"
                if wanted is None
                else f"layers are {', '.join(sorted(wanted)) or 'none'}; expected some "
                "that apply has"
            )
        taps = {position: label for position, _, label in taken}
        results, found = evaluate(traced.program, taps, stop_gradient, *traced.arrays)
        maps: dict[str, jax.Array] = {}
        times: Counter[str] = Counter()
        for _, path, label in taken:
            for each in found[label]:
                maps[numbered(path, times)] = each
        return jax.tree.unflatten(jax.tree.structure(traced.output), results), maps

    return with_maps
