"""Iterative initialization: minimise Convolutional Similarity before training."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from convsim_jax._checks import accumulation_dtype, check_count
from convsim_jax._kernels import GroupCounts, Kernels, Layout, choose_kernels
from convsim_jax._layers import ConvLayer, ConvLayers
from convsim_jax._norms import channel_norms, with_channel_norms
from convsim_jax._paths import Mask, map_leaves
from convsim_jax._similarity import Channels, Objective, Pairs
from convsim_jax._total import sum_over_layers

DEFAULT_OPTIMIZER = optax.adam(2e-3)
# Few steps are taken: here a program saved is worth more than the copy of a stack.
MAX_STACKED_SIZE = 2**17


class SimilarityHistory(NamedTuple):
    """What `minimize_similarity` saw: entry t of each array is after t steps.

    Attributes:
      loss: What was minimised, shape `(steps + 1,)`.
      scale_free_loss: The same with `normalize=True`, shape `(steps + 1,)`: it falls only
        where kernels become less similar, not where they merely shrink.
      norms: `{path: norm of the layer's kernel}`, each of shape `(steps + 1,)`.
    """

    loss: jax.Array
    scale_free_loss: jax.Array
    norms: dict[str, jax.Array]


def minimize_similarity(
    params: chex.ArrayTree,
    steps: int,
    *,
    optimizer: optax.GradientTransformation = DEFAULT_OPTIMIZER,
    preserve_norm: bool = False,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
    pairs: Pairs = "all",
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: GroupCounts | None = None,
) -> tuple[chex.ArrayTree, SimilarityHistory]:
    r"""Takes steps down the Convolutional Similarity of a network's conv kernels.

    .. math:: K_{t+1} = K_t + \mathrm{optimizer}(\nabla L(K_t))

    All steps are one compiled scan. Half precisions take them in float32.

    Args:
      params: Tree of parameters; `conv_kernels` says which leaves count.
      steps: Number of steps, 0 or more.
      optimizer: Any optax optimizer; by default the paper's, Adam at 2e-3.
      preserve_norm: Scale every output channel's kernel back to its initial norm after
        every step, so that the loss cannot fall by shrinking the weights.
      mask: Tree of bools, or a function that makes one; see `conv_kernels`.
      layout: `"HWIO"` (Flax) or `"OIHW"` (Equinox, PyTorch); see `conv_kernels`.
      layers: What `conv_layers` says of the network; see `total_similarity`.
      pairs: `"all"` or `"adjacent"`; see `convolutional_similarity`.
      channels: `"matched"` or `"cross"`; see `convolutional_similarity`.
      normalize: Minimise each layer's mean scale-free similarity instead.
      feature_group_count: As in `total_similarity`.

    Returns:
      `(params, history)`: the tree with its conv kernels replaced, in their dtypes, and
      a `SimilarityHistory`.

    Raises:
      ValueError: `steps` is no int or negative; and as `total_similarity`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 8))
      >>> params, history = minimize_similarity(
      ...     {"conv": {"kernel": kernel}}, 20, channels="cross", normalize=True
      ... )
      >>> history.loss.shape, bool(history.loss[-1] < history.loss[0])
      ((21,), True)

    Source: Belmekki et al., arXiv 2411.03226, section 5 (iterative initialization).
    """
    steps = check_count(steps, "steps", least=0)
    objective = Objective(pairs, channels, normalize)
    kernels = choose_kernels(params, mask, layout, layers, feature_group_count)
    distinct = kernels.distinct()
    moved, history = _minimize(
        distinct.leaves,
        layers=tuple(distinct.layers.items()),
        steps=steps,
        optimizer=optimizer,
        objective=objective,
        preserve_norm=preserve_norm,
    )
    by_array = {id(leaf): moved[path] for path, leaf in distinct.leaves.items()}

    def replaced(path: str, leaf: jax.Array) -> jax.Array:
        if path not in kernels.leaves:
            return leaf
        before = kernels.leaves[path]
        return by_array[id(before)].astype(before.dtype)

    return map_leaves(replaced, params), history


@partial(
    jax.jit,
    static_argnames=("layers", "steps", "optimizer", "objective", "preserve_norm"),
)
def _minimize(
    leaves: dict[str, jax.Array],
    layers: tuple[tuple[str, ConvLayer], ...],
    steps: int,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    preserve_norm: bool,
) -> tuple[dict[str, jax.Array], SimilarityHistory]:
    leaves = {k: x.astype(accumulation_dtype(x.dtype)) for k, x in leaves.items()}
    scaled_back = {x.path: _norm_keeper(x, leaves[x.path]) for _, x in layers}
    update = optax.with_extra_args_support(optimizer).update
    scale_free = dataclasses.replace(objective, normalize=True)

    def loss_of(
        leaves: dict[str, jax.Array], objective: Objective = objective
    ) -> jax.Array:
        kernels = Kernels(dict(layers), leaves)
        return sum_over_layers(kernels, objective, MAX_STACKED_SIZE)

    def record(leaves: dict[str, jax.Array], loss: jax.Array) -> SimilarityHistory:
        return SimilarityHistory(
            loss=loss,
            scale_free_loss=loss if objective.normalize else loss_of(leaves, scale_free),
            norms={path: jnp.sqrt(jnp.sum(jnp.square(x))) for path, x in leaves.items()},
        )

    def step(carry: tuple, last: jax.Array) -> tuple[tuple, SimilarityHistory]:
        leaves, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(leaves)
        # XLA would repeat the gradient of a stack in the update of each of its layers.
        loss, gradient = jax.lax.optimization_barrier((loss, gradient))
        updates, state = update(
            gradient, state, leaves, value=loss, grad=gradient, value_fn=loss_of
        )
        moved = optax.apply_updates(leaves, updates)
        if preserve_norm:
            moved = {path: scaled_back[path](leaf) for path, leaf in moved.items()}
        # The last pass is there for its entry in the history: no second program for it.
        leaves_after = jax.tree.map(partial(jnp.where, last), leaves, moved)
        return (leaves_after, state), record(leaves, loss)

    carry = (leaves, optimizer.init(leaves))
    (leaves, _), history = jax.lax.scan(step, carry, jnp.arange(steps + 1) == steps)
    return leaves, history


def _norm_keeper(
    layer: ConvLayer, initial: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Scales each output channel of a leaf to the norm that it has now."""
    norms_of, scaled_to = channel_norms, with_channel_norms
    for _ in layer.stack:
        norms_of, scaled_to = jax.vmap(norms_of), jax.vmap(scaled_to)
    norms = norms_of(layer.read(initial))
    return lambda leaf: layer.write(scaled_to(layer.read(leaf), norms))
