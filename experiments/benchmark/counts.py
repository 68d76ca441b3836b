"""What programs would do on accelerators: rows of the tables of `--compile-for`."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import convsim_jax as cs
from experiments.benchmark import networks
from experiments.benchmark.accelerators import compiled_for, devices
from experiments.benchmark.updates import (
    LOSSES,
    RECOMMENDED,
    SGD,
    sgd,
    transformations,
    update,
)

Rows = list[dict[str, Any]]
ALONE, SHARDED = "one device", "4 chips, weights sharded"
STEPS = (SGD, RECOMMENDED)
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


def kernels(kind: str, name: str, _: object = None, dtype: Any = jnp.float32) -> Rows:
    """SGD's update of a network's conv kernels; value and gradient of every option."""
    shapes = networks.kernel_shapes(name).items()
    params = placed({p: jax.ShapeDtypeStruct(s, dtype) for p, s in shapes}, kind)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in params.values())
    optimizer = sgd(transformations()[SGD])
    carry = (params, placed(jax.eval_shape(optimizer.init, params), kind))
    found = {SGD: compiled_for(kind, update(optimizer), carry, params, donate=0)}
    for option, options in LOSSES.items():
        loss = jax.value_and_grad(partial(cs.total_similarity, **options))
        found[option] = compiled_for(kind, loss, params)
    return [
        {
            "program": option,
            **done,
            "times_moved": done["moved"] / weights,
            "times_memory": done["extra_memory"] / weights,
        }
        for option, done in found.items()
    ]


def step(
    kind: str, name: str, batch_size: int, _: object = None, dtype: Any = "bfloat16"
) -> Rows:
    """A step of training, without the loss and with it, in every layout."""
    rows = []
    for layout in LAYOUTS if len(devices(kind)) > 1 else [ALONE]:
        for program in STEPS:
            optimizer = sgd(transformations()[program])
            network = placed(networks.network(name, optimizer), kind, layout)
            batch = networks.batch_of(name, batch_size)
            divided = ALONE if layout == ALONE else SHARDED
            batch = placed(batch, kind, divided, axis=0)
            function = networks.step_of(name, optimizer, dtype)
            done = compiled_for(kind, function, network, batch, donate=0)
            rows.append({"program": program, "layout": layout, **done})
    return rows
