"""Whether a training fits into memory, told before anything of it is made."""

import os
from typing import Any

import jax

# Of the weights: themselves, their gradient, the momentum, the best so far.
COPIES = 4
# Of what the gradient is computed from. XLA keeps 50 to 80 % of it for the networks here.
KEPT = 0.5


def device_memory() -> int:
    """Bytes of a device's memory; of a CPU's, the machine's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return statistics.get("bytes_limit", machine)


def check_memory(
    model: Any, variables: Any, images: jax.ShapeDtypeStruct, seeds: int
) -> None:
    """Raises a ValueError if networks cannot be trained on batches of these images.

    Nothing is computed: `variables` are shapes, and `images` the shape of a batch of all
    devices together. Less memory may still be too little: an estimate, from below.
    """
    params = variables["params"]
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def pull_back(params: Any, rest: Any, images: jax.Array, key: jax.Array) -> Any:
        def forward(params: Any) -> Any:
            variables = {"params": params, **rest}
            logits, updated = model.apply(
                variables, images, train=True, rngs=key, mutable=list(rest)
            )
            return logits, dict(updated)

        return jax.vjp(forward, params, has_aux=True)[1:]

    kept, updated = jax.eval_shape(pull_back, params, rest, images, jax.random.key(0))
    before, after = (str(jax.tree.structure(tree)) for tree in (rest, updated))
    if before != after:
        raise ValueError(f"a step makes of its variables {before} others, {after}")
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    maps = max(size_in_bytes(kept) - size_in_bytes(params), 0) // jax.device_count()
    needed = COPIES * 4 * seeds * weights + int(KEPT * maps)
    if needed > (there := device_memory()):
        batch, height, width, _ = images.shape
        raise ValueError(
            f"training takes {needed >> 30:,} GiB of memory or more, and there are "
            f"{there >> 30:,}: {seeds} x {weights:,} weights (--seeds, --model, --width) "
            f"and what becomes of {batch} images of {height}x{width} (--batch-size, "
            "--image-size)"
        )


def size_in_bytes(tree: Any) -> int:
    """Of arrays, or of their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in leaves)
