"""Feature maps of conv layers of a Flax model, marked while it is traced.

Linen lets its layers' calls be intercepted. NNX does not, so there the layers of a copy
of the model are given a class that marks what they return. A mark is a name in the traced
program, at which its evaluation hands the value out.
"""

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import errors, nnx
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

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


@dataclasses.dataclass
class _Application:
    """A call of a conv layer; `output` moves on to that of its normalization."""

    path: str
    output: jax.Array
    shape: tuple[int, ...]
    batch_axes: int

    def passes(self, maps: jax.Array) -> jax.Array:
        """Maps of each pass of the scans around it, with a single batch axis."""
        batch, sides = self.shape[: self.batch_axes], self.shape[self.batch_axes :]
        return maps.reshape(-1, math.prod(batch), *sides)


class _Marker:
    """Told of every layer that runs, it marks the feature maps of a model."""

    def __init__(self, model: str) -> None:
        self.model = model
        # A new one each time: a trace that nn.jit or nnx.jit has kept has others.
        self.prefix = f"feature_maps_{next(_serial_number)}_"
        self.layers: dict[str, str] = {}
        self.applications: list[_Application] = []

    def mark(
        self, path: Sequence[Any], layer: Any, inputs: Sequence[Any], output: Any
    ) -> Any:
        """What the layer returns, with a mark if it is a conv layer or normalizes one."""
        name = "/".join(map(str, path)) or self.model
        self.layers.setdefault(name, type(layer).__name__)
        if issubclass(type(layer), CONV_LAYERS):
            batch_axes = output.ndim - np.size(layer.kernel_size) - 1
            shape = output.shape
            self.applications.append(_Application(name, output, shape, batch_axes))
            inputs = [output]
        elif not isinstance(layer, NORM_LAYERS):
            return output
        for number, application in enumerate(self.applications):
            if any(array is application.output for array in inputs):
                kind = "norm" if application.output is not output else "conv"
                output = checkpoint_name(output, f"{self.prefix}{number}_{kind}")
                application.output = output
        return output

    def captured(
        self, function: Callable[..., Any], *arguments: Any
    ) -> dict[str, jax.Array]:
        """The maps of each application, in order, that calling the function marks."""
        program = jax.make_jaxpr(function)(*arguments)
        if not self.applications:
            layers = (f"{path} ({kind})" for path, kind in self.layers.items())
            raise ValueError(
                f"no conv layer is applied by {self.model}: looked for Conv, ConvLocal "
                f"and ConvTranspose among {', '.join(layers) or 'no layer at all'}"
            )
        marks: list[tuple[_Application, tuple[int, ...]]] = []
        for position, equation in names(program.jaxpr):
            name = equation.params["name"]
            if not name.startswith(self.prefix):
                continue
            call, kind = name.removeprefix(self.prefix).split("_")
            application = self.applications[int(call)]
            if kind == "norm":  # of the latest conv layer's output of that mark
                latest = max(n for n, (of, _) in enumerate(marks) if of is application)
                marks[latest] = application, position
            else:
                marks.append((application, position))
            if shape_of(equation.outvars[0]) != application.shape:
                raise ValueError(
                    f"conv layer {application.path} of {self.model} runs inside vmap, "
                    "which stacks its feature maps; capture those of the same model "
                    "written as a loop or a scan"
                )
        calls = [f"{a.path}, call {n}" for n, (a, _) in enumerate(marks, 1)]
        taps = {position: call for (_, position), call in zip(marks, calls, strict=True)}
        _, found = evaluate(program, taps, False, *jax.tree.leaves(arguments))
        maps: dict[str, jax.Array] = {}
        times: dict[str, int] = {}
        for (application, _), call in zip(marks, calls, strict=True):
            for of_one_pass in application.passes(found[call]):
                n = times[application.path] = times.get(application.path, 0) + 1
                maps[application.path + (f"#{n}" if n > 1 else "")] = of_one_pass
        return maps


def _evaluation_mode(model: nn.Module | nnx.Module) -> dict[str, bool]:
    accepted = inspect.signature(type(model).__call__).parameters
    return {name: value for name, value in EVALUATION_MODE.items() if name in accepted}


def run_linen(
    model: nn.Module, variables: Mapping[str, Any], batch: Any, **kwargs: Any
) -> dict[str, jax.Array]:
    """Feature maps of each conv layer of a Linen model, in order of use."""
    marker = _Marker(type(model).__name__)

    def intercept(
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output, layer = method(*args, **kwargs), context.module
        if context.method_name != "__call__":
            return output
        return marker.mark(layer.path, layer, (*args, *kwargs.values()), output)

    kwargs = _evaluation_mode(model) | kwargs

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
    copy = nnx.clone(model)
    copy.eval()
    for path, module in nnx.iter_modules(copy):
        layer: Any = module
        layer_type: Any = type(module)
        marker.layers["/".join(map(str, path))] = layer_type.__name__
        if issubclass(layer_type, CONV_LAYERS + NORM_LAYERS):
            object.__setattr__(layer, "__class__", _marking(layer_type))
            layer.mark_feature_maps = functools.partial(marker.mark, path)
    kwargs = _evaluation_mode(model) | kwargs
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
