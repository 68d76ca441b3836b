"""Networks of one's own: `--model package.module:name`.

The name is that of a Linen class, an NNX class, or a function that makes a module of
either. It is called with those of `classes`, `channels` (of the images), `width`,
`activation`, `dtype` and, as an NNX module needs, `rngs` that it takes. The module makes
of images `(batch, height, width, channels)` logits `(batch, classes)`.

No more is asked; the rest is used where it is there. Its call may take the mode, as
`train` or by another usual name. `activation`, a name in `ACTIVATIONS` or a function, is
that of the maps that are measured, else ReLU. With `momentum` its running averages are
those of the images before training too, else as they were made. `smallest_image` gives an
error of its own to smaller ones.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from convsim_jax.flax import FeatureMaps, capture_feature_maps
from experiments.models.layers import ACTIVATIONS
from experiments.own_code import called, named, takes

# The names by which calls commonly take their mode, and what they are in training.
IN_TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}
DEFAULTS = {"width": 1.0, "activation": "relu", "dtype": jnp.dtype("float32")}


def own_network(name: str, **options: Any) -> Any:
    """The network of that name, which is called as those of `experiments.models` are."""
    make = named("--model", name)
    for option, default in DEFAULTS.items():
        if options[option] != default and not takes(make, option):
            raise ValueError(
                f"--{option} is {options[option]}; expected {default}: {name} takes no "
                f"{option}"
            )
    made = partial(called, make, "--model", name, **options)
    if takes(make, "rngs"):  # shapes alone, at no cost; arrays come with each key
        module = nnx.eval_shape(lambda: made(rngs=nnx.Rngs(0)))
        return NNXNetwork(lambda key: made(rngs=nnx.Rngs(key)), module)
    module = made()
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"--model is {name!r}, which makes {type(module).__name__}; expected a "
            "flax.linen.Module, or, of an argument rngs, a flax.nnx.Module"
        )
    train = inspect.signature(type(module).__call__).parameters.get("train")
    return module if train is not None and train.default is False else Moded(module)


def attribute(model: Any, name: str, default: Any) -> Any:
    """An attribute of a network, where it has it."""
    module = model.network if isinstance(model, Moded | NNXNetwork) else model
    return getattr(module, name, default)


def feature_maps(
    model: Any, variables: Mapping[str, Any], images: jax.Array
) -> dict[str, FeatureMaps]:
    """`capture_feature_maps` of any network; nothing where that cannot see them."""
    activation = attribute(model, "activation", "relu")
    options = {"activation": ACTIVATIONS.get(activation, activation)}
    if isinstance(model, NNXNetwork):
        model = model.module(variables)
    else:
        options["variables"] = variables
    try:
        return capture_feature_maps(model, images, **options)
    except ValueError:  # no conv layer, or one inside of scan or vmap
        return {}


def mode_of(module: Any, train: bool) -> dict[str, bool]:
    """The arguments by which a module's call takes its mode."""
    accepted = inspect.signature(type(module).__call__).parameters
    return {k: v is train for k, v in IN_TRAINING.items() if k in accepted}


class Moded(nn.Module):
    """A Linen module whose mode is called `train`; its variables have the same paths."""

    network: nn.Module

    def setup(self) -> None:
        """Leaves this module out of the paths."""
        nn.share_scope(self, self.network)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits."""
        return self.network(images, **mode_of(self.network, train))


@dataclass(frozen=True)
class NNXNetwork:
    """An NNX module, called as a Linen module is: its arrays are variables."""

    make: Callable[[jax.Array], nnx.Module]  # of a random key
    network: nnx.Module  # with shapes in place of arrays

    def init(self, key: jax.Array, images: jax.Array) -> dict[str, Any]:
        """Parameters, and all else that it holds but random states."""
        del images  # its shapes are known
        return _variables(self.make(key))

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        *,
        train: bool = False,
        mutable: Any = False,
        rngs: jax.Array | None = None,
    ) -> Any:
        """Logits, and with `mutable` the variables that are no parameters."""
        module = self.module(variables, rngs)
        module.train() if train else module.eval()
        logits = module(images, **mode_of(module, train))
        if mutable is False:
            return logits
        return logits, {k: v for k, v in _variables(module).items() if k != "params"}

    def module(self, variables: Mapping[str, Any], key: jax.Array | None = None) -> Any:
        """The module with these variables, its random layers with this key."""
        definition, params, random, rest = _split(self.network)
        key = jax.random.key(0) if key is None else key
        leaves, tree = jax.tree.flatten(random)
        leaves = [
            jax.random.fold_in(key, i)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        for state, name in ((params, "params"), (rest, "state")):
            arrays = nnx.restore_int_paths(dict(variables.get(name, {})))
            nnx.replace_by_pure_dict(state, arrays)
        return nnx.merge(definition, params, jax.tree.unflatten(tree, leaves), rest)


def _split(module: nnx.Module) -> Any:
    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _variables(module: nnx.Module) -> dict[str, Any]:
    _, params, _, rest = _split(module)
    parts = {"params": params, "state": rest}
    return {k: _as_text(nnx.to_pure_dict(state)) for k, state in parts.items() if state}


def _as_text(tree: Any) -> Any:
    """Numbers of layers in a list become text, as in a checkpoint."""
    if not isinstance(tree, dict):
        return tree
    return {str(key): _as_text(branch) for key, branch in tree.items()}
