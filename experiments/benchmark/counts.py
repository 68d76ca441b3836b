"""What programs would do on accelerators: rows of the tables of `--compile-for`."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import chex
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import convsim_jax as cs
from experiments.benchmark import networks
from experiments.benchmark.accelerators import compiled_for, devices
from experiments.benchmark.networks import Shape
from experiments.benchmark.parts import APART, DECORRELATED
from experiments.benchmark.updates import (
    LOSSES,
    RECOMMENDED,
    SGD,
    sgd,
    transformations,
    update,
)
from experiments.losses import Decorrelation

Rows = list[dict[str, Any]]
ALONE, SHARDED = "one device", "4 chips, weights sharded"
PROGRAMS = (SGD, *LOSSES)
# A step of SGD alone, with the loss of the kernels, and with one of the maps.
STEPS: dict[str, tuple[str, Decorrelation | None]] = {
    SGD: (SGD, None),
    RECOMMENDED: (RECOMMENDED, None),
    DECORRELATED: (SGD, APART),
}
LAYOUTS = (ALONE, "4 chips, data-parallel", SHARDED)


def placed(tree: chex.ArrayTree, kind: str, layout: str = ALONE, axis: int = -1) -> Any:
    """Shapes, on one device or on a slice of four.

    There every chip has all of an array; if sharded, a part of it along `axis`, the last
    one of kernels being that of output channels, where four divide it.
    """
    chips = devices(kind)
    mesh = Mesh(np.array(chips), ("chips",), axis_types=(AxisType.Auto,))

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        axes: list[str | None] = [None] * leaf.ndim
        if layout == SHARDED and leaf.ndim and leaf.shape[axis] % 4 == 0:
            axes[axis] = "chips"
        alone = SingleDeviceSharding(chips[0])
        sharding = alone if layout == ALONE else NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, tree)


def kernels(kind: str, name: str, _: object = None) -> Rows:
    """SGD's update of a network's conv kernels; value and gradient of every option."""
    return losses(kind, networks.kernel_shapes(name), PROGRAMS)


def losses(kind: str, shapes: Mapping[str, Shape], programs: Iterable[str]) -> Rows:
    """The same of kernels of such shapes, some of the programs.

    Nothing is donated: what is moved is the same, but XLA's count for a TPU has the
    update of donated arrays move more.
    """
    shaped = {k: jax.ShapeDtypeStruct(shape, "float32") for k, shape in shapes.items()}
    params = placed(shaped, kind)
    weights = 4 * sum(leaf.size for leaf in params.values())
    rows = []
    for program in programs:
        if program == SGD:
            optimizer = sgd(transformations()[SGD])
            carry = (params, placed(jax.eval_shape(optimizer.init, params), kind))
            done = compiled_for(kind, update(optimizer), carry, params)
        else:
            loss = partial(cs.total_similarity, **LOSSES[program])
            done = compiled_for(kind, jax.value_and_grad(loss), params)
        moved, memory = done["moved"] / weights, done["extra_memory"] / weights
        about = {"times_moved": moved, "times_memory": memory}
        rows.append({"program": program, **done, **about})
    return rows


def step(
    kind: str,
    name: str,
    batch_size: int,
    _: object = None,
    dtype: Any = "bfloat16",
    layouts: Sequence[str] = LAYOUTS,
) -> Rows:
    """A step of training, without a loss and with it, in every layout."""
    rows = []
    for layout in layouts if len(devices(kind)) > 1 else [ALONE]:
        for program, (added, of_maps) in STEPS.items():
            optimizer = sgd(transformations()[added])
            network = placed(networks.network(name, optimizer), kind, layout)
            batch = networks.batch_of(name, batch_size)
            divided = ALONE if layout == ALONE else SHARDED
            batch = placed(batch, kind, divided, axis=0)
            function = networks.step_of(name, optimizer, dtype, of_maps)
            done = compiled_for(kind, function, network, batch, donate=0)
            rows.append({"program": program, "layout": layout, **done})
    return rows
