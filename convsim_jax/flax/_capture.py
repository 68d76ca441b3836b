"""Feature maps of conv layers, recorded while a Flax model runs.

Linen lets its layers' calls be intercepted. NNX does not, so there the layers of a copy
of the model are given a class that reports its calls.
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
from flax import errors, nnx, traverse_util
from flax import linen as nn

# Linen and NNX modules share the attributes used here, but no class.
Layer = Any
Path = tuple[Any, ...]

CONV_LAYERS: tuple[type, ...] = (
    nn.Conv,
    nn.ConvLocal,
    nn.ConvTranspose,
    nnx.Conv,
    nnx.ConvTranspose,
)
NORM_LAYERS: tuple[type, ...] = (
    nn.BatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nnx.BatchNorm,
    nnx.GroupNorm,
    nnx.InstanceNorm,
    nnx.LayerNorm,
    nnx.RMSNorm,
)
# The names under which models commonly take their mode.
EVALUATION_MODE = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}
SOWN = "feature_maps"
_serial_number = itertools.count()


@dataclasses.dataclass
class _Application:
    """One application of a conv layer; `output` moves on to its normalization."""

    layer: Layer
    path: Path
    count: int
    output: jax.Array

    @property
    def name(self) -> str:
        return f"{SOWN}_{self.count}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output with a single batch axis: Flax takes any number of them."""
        *sides, M = self.output.shape
        batch = len(sides) - np.size(self.layer.kernel_size)
        return math.prod(sides[:batch]), *sides[batch:], M


class _Recorder:
    """Told of every layer that runs, sows the feature maps.

    They are sown, which is Flax's way out of `remat` and `jit`, and not just kept.
    """

    def __init__(self, collection: Any) -> None:
        self.collection = collection
        self.layers: dict[Path, str] = {}
        self.applications: list[_Application] = []

    def record(
        self, path: Path, layer: Layer, inputs: Sequence[Any], output: Any
    ) -> None:
        if isinstance(layer, CONV_LAYERS):
            count = 1 + sum(path == other.path for other in self.applications)
            self.applications.append(_Application(layer, path, count, output))
            self._sow(self.applications[-1])
        elif isinstance(layer, NORM_LAYERS):
            for application in self.applications:
                if any(array is application.output for array in inputs):
                    application.output = output
                    self._sow(application)

    def _sow(self, application: _Application) -> None:
        application.layer.sow(
            self.collection,
            application.name,
            application.output.reshape(application.shape),
            init_fn=lambda: None,
            reduce_fn=lambda _, latest: latest,
        )

    def collect(self, sown: Mapping[str, Any], model: str) -> dict[str, jax.Array]:
        """The maps of each application, in order, found again in what was sown."""
        if not self.applications:
            layers = (f"{'/'.join(map(str, p))} ({t})" for p, t in self.layers.items())
            raise ValueError(
                f"no conv layer is applied by {model}: looked for Conv, ConvLocal and "
                f"ConvTranspose among {', '.join(layers) or 'no layer at all'}"
            )
        # Keyed by path, a tuple whose last entry is the name given to sow.
        found = traverse_util.flatten_dict(sown)
        maps = {}
        for application in self.applications:
            path = "/".join(map(str, application.path)) or model
            before = found.get((*application.path, application.name))
            if before is None or before.shape != application.shape:
                raise ValueError(
                    f"conv layer {path} of {model} runs inside scan or vmap, which "
                    "stack its feature maps or drop them; capture those of the same "
                    "model written as a loop"
                )
            again = f"#{application.count}" if application.count > 1 else ""
            maps[path + again] = before
        return maps


def _evaluation_mode(model: nn.Module | nnx.Module) -> dict[str, bool]:
    accepted = inspect.signature(type(model).__call__).parameters
    return {name: value for name, value in EVALUATION_MODE.items() if name in accepted}


def run_linen(
    model: nn.Module, variables: Mapping[str, Any], batch: Any, **kwargs: Any
) -> dict[str, jax.Array]:
    """Feature maps of each conv layer of a Linen model, in order of use."""
    name = type(model).__name__
    # A new collection each time: nn.jit would run a trace it has kept, and not be seen.
    recorder = _Recorder(f"{SOWN}_{next(_serial_number)}")

    def intercept(
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = method(*args, **kwargs)
        layer = context.module
        if context.method_name == "__call__":
            recorder.layers[layer.path] = type(layer).__name__
            recorder.record(layer.path, layer, (*args, *kwargs.values()), output)
        return output

    kwargs = _evaluation_mode(model) | kwargs
    try:
        with nn.intercept_methods(intercept):
            _, sown = model.apply(
                variables, batch, mutable=[recorder.collection], **kwargs
            )
    except (errors.ModifyScopeVariableError, errors.InvalidRngError) as error:
        raise ValueError(
            f"{name} runs in training mode: pass, or build it with, what sets evaluation "
            f"mode, such as train=False ({error})"
        ) from error
    return recorder.collect(sown.get(recorder.collection, {}), name)


def run_nnx(model: nnx.Module, batch: Any, **kwargs: Any) -> dict[str, jax.Array]:
    """Feature maps of each conv layer of an NNX model, in order of use."""
    recorder = _Recorder(nnx.Intermediate)
    copy = nnx.clone(model)
    copy.eval()
    for path, layer in nnx.iter_modules(copy):
        recorder.layers[path] = type(layer).__name__
        if isinstance(layer, CONV_LAYERS + NORM_LAYERS):
            _report_calls(layer, functools.partial(recorder.record, path))
    kwargs = _evaluation_mode(model) | kwargs
    _, sown = nnx.capture(copy, nnx.Intermediate)(batch, **kwargs)
    return recorder.collect(nnx.to_pure_dict(sown), type(model).__name__)


def _report_calls(layer: Layer, report: Callable[..., None]) -> None:
    layer_type: Any = type(layer)
    object.__setattr__(layer, "__class__", _reporting(layer_type))
    layer._report = report


@functools.cache
def _reporting(layer_type: type) -> type:
    class Reporting(layer_type):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            output = super().__call__(*args, **kwargs)
            self._report(self, (*args, *kwargs.values()), output)
            return output

    return Reporting
