"""Feature maps of conv layers of a Flax model, marked while it is traced.

Linen lets its layers' calls be intercepted. NNX does not, so there the layers of a copy
of the model are given a class that marks what they return. A mark is a name in the traced
program, at which its evaluation hands the value out.
"""

import functools
import inspect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import errors, nnx
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from convsim_jax._paths import numbered
from convsim_jax._taps import evaluate, names
from convsim_jax._trace import shape_of

CONV_LAYERS: tuple[type, ...] = (
    nn.Conv,
    nn.ConvLocal,
    nn.ConvTranspose,
    nnx.Conv,
    nnx.ConvTranspose,
)
NORM_LAYERS: tuple[type, ...] = tuple(
    getattr(library, name)
    for library in (nn, nnx)
    for name in ("BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm")
)
# The names under which models commonly take their mode.
EVALUATION_MODE = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}
_serial_number = itertools.count()


class _Call(NamedTuple):
    """A call of a conv layer, and the array that holds its maps."""

    path: str
    maps: jax.Array
    shape: tuple[int, ...]  # of one pass, with a single batch axis


class _Marker:
    """Told of every layer that runs, it marks the feature maps of a model."""

    def __init__(self, model: str) -> None:
        self.model = model
        # A new one each time: a trace that nn.jit or nnx.jit has kept has others.
        self.prefix = f"feature_maps_{next(_serial_number)}_"
        self.layers: dict[str, str] = {}
        self.calls: list[_Call] = []

    def mark(self, path: tuple[Any, ...], layer: Any, inputs: Any, output: Any) -> Any:
        """What the layer returns, with a mark if it is a conv layer or normalizes one."""
        name, kind = "/".join(map(str, path)) or self.model, "norm"
        self.layers.setdefault(name, type(layer).__name__)
        if issubclass(type(layer), CONV_LAYERS):
            sides = output.shape[-np.size(layer.kernel_size) - 1 :]
            shape = math.prod(output.shape[: -len(sides)]), *sides
            self.calls.append(_Call(name, output, shape))
            inputs, kind = [output], "conv"
        elif not isinstance(layer, NORM_LAYERS):
            return output
        for number, call in enumerate(self.calls):
            if any(array is call.maps for array in inputs):
                output = checkpoint_name(output, f"{self.prefix}{number}_{kind}")
                self.calls[number] = call._replace(maps=output)
        return output

    def captured(
        self, function: Callable[..., Any], *arguments: Any
    ) -> dict[str, jax.Array]:
        """The maps of each call, in order, that calling the function marks."""
        program = jax.make_jaxpr(function)(*arguments)
        if not self.calls:
            layers = (f"{path} ({kind})" for path, kind in self.layers.items())
            raise ValueError(
                f"no conv layer is applied by {self.model}: looked for Conv, ConvLocal "
                f"and ConvTranspose among {', '.join(layers) or 'no layer at all'}"
            )
        marks: list[tuple[int, tuple[int, ...]]] = []
        for position, equation in names(program.jaxpr):
            if not equation.params["name"].startswith(self.prefix):
                continue
            text, kind = equation.params["name"].removeprefix(self.prefix).split("_")
            number = int(text)
            if kind == "norm":  # of the latest conv layer's output of that mark
                before = [n for n, mark in enumerate(marks) if mark[0] == number]
                marks[before[-1]] = number, position
            else:
                marks.append((number, position))
            call = self.calls[number]
            if math.prod(shape_of(equation.outvars[0])) != math.prod(call.shape):
                raise ValueError(
                    f"conv layer {call.path} of {self.model} runs inside vmap, which "
                    "stacks its feature maps; capture those of the same model written as "
                    "a loop or a scan"
                )
        calls = [self.calls[number] for number, _ in marks]
        labels = [f"{call.path}, call {n}" for n, call in enumerate(calls, 1)]
        taps = {
            position: label for (_, position), label in zip(marks, labels, strict=True)
        }
        _, found = evaluate(program, taps, False, *jax.tree.leaves(arguments))
        times: Counter[str] = Counter()
        return {
            numbered(call.path, times): maps.reshape(call.shape)
            for call, label in zip(calls, labels, strict=True)
            for maps in found[label]
        }


def _evaluation_mode(model: nn.Module | nnx.Module) -> dict[str, bool]:
    accepted = inspect.signature(type(model).__call__).parameters
    return {name: value for name, value in EVALUATION_MODE.items() if name in accepted}


def run_linen(
    model: nn.Module, variables: Mapping[str, Any], batch: Any, **kwargs: Any
) -> dict[str, jax.Array]:
    """Feature maps of each conv layer of a Linen model, in order of use."""
    marker = _Marker(type(model).__name__)
    kwargs = _evaluation_mode(model) | kwargs

    def intercept(
        method: Callable[..., Any], args: Any, kwargs: Any, context: Any
    ) -> Any:
        output, layer = method(*args, **kwargs), context.module
        if context.method_name != "__call__":
            return output
        return marker.mark(layer.path, layer, (*args, *kwargs.values()), output)

    def run(variables: Mapping[str, Any], batch: Any) -> Any:
        # The collection that nothing is in makes nn.jit trace anew, and be seen.
        return model.apply(variables, batch, mutable=[marker.prefix], **kwargs)

    try:
        with nn.intercept_methods(intercept):
            return marker.captured(run, variables, batch)
    except (errors.ModifyScopeVariableError, errors.InvalidRngError) as error:
        raise ValueError(
            f"{marker.model} runs in training mode: pass, or build it with, what sets "
            f"evaluation mode, such as train=False ({error})"
        ) from error


def run_nnx(model: nnx.Module, batch: Any, **kwargs: Any) -> dict[str, jax.Array]:
    """Feature maps of each conv layer of an NNX model, in order of use."""
    marker = _Marker(type(model).__name__)
    kwargs = _evaluation_mode(model) | kwargs
    copy = nnx.clone(model)
    copy.eval()
    for path, module in nnx.iter_modules(copy):
        layer: Any = module
        layer_type: Any = type(module)
        marker.layers["/".join(map(str, path))] = layer_type.__name__
        if issubclass(layer_type, CONV_LAYERS + NORM_LAYERS):
            object.__setattr__(layer, "__class__", _marking(layer_type))
            layer.mark_feature_maps = functools.partial(marker.mark, path)
    graph, state = nnx.split(copy)

    def run(state: Any, batch: Any) -> Any:
        return nnx.merge(graph, state)(batch, **kwargs)

    return marker.captured(run, state, batch)


@functools.cache
def _marking(layer_type: Any) -> type:
    class Marking(layer_type):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            output = super().__call__(*args, **kwargs)
            return self.mark_feature_maps(self, (*args, *kwargs.values()), output)

    return Marking
