"""Iterative initialization: minimise Convolutional Similarity before training."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from convsim_jax._checks import accumulation_dtype, check_count
from convsim_jax._kernels import (
    Layout,
    Mask,
    conv_kernels,
    to_layout,
)
from convsim_jax._norms import channel_norms, with_channel_norms
from convsim_jax._paths import map_leaves
from convsim_jax._similarity import Channels, Objective, Pairs
from convsim_jax._total import GroupCounts, group_counts, sum_over_layers

DEFAULT_OPTIMIZER = optax.adam(2e-3)


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
        every step: the raw loss falls fastest by shrinking the weights, and this leaves
        the direction alone to it.
      mask: Tree of bools, or a function that makes one; see `conv_kernels`.
      layout: `"HWIO"` (Flax) or `"OIHW"` (Equinox, PyTorch); see `conv_kernels`.
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
    kernels = conv_kernels(params, mask=mask, layout=layout)
    groups = group_counts(kernels, feature_group_count)
    kernels, history = _minimize(
        kernels,
        steps=check_count(steps, "steps", least=0),
        optimizer=optimizer,
        objective=Objective(pairs, channels, normalize),
        groups=tuple(groups.items()),
        preserve_norm=preserve_norm,
    )

    def in_layout(leaf: jax.Array, kernel: jax.Array) -> jax.Array:
        return to_layout(kernel, layout).astype(jnp.asarray(leaf).dtype)

    return map_leaves(in_layout, params, kernels), history


@partial(
    jax.jit,
    static_argnames=("steps", "optimizer", "objective", "groups", "preserve_norm"),
)
def _minimize(
    kernels: dict[str, jax.Array],
    steps: int,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    groups: tuple[tuple[str, int], ...],
    preserve_norm: bool,
) -> tuple[dict[str, jax.Array], SimilarityHistory]:
    kernels = {k: x.astype(accumulation_dtype(x.dtype)) for k, x in kernels.items()}
    initial_norms = jax.tree.map(channel_norms, kernels)
    scale_free = replace(objective, normalize=True)

    def record(kernels: dict[str, jax.Array], loss: jax.Array) -> SimilarityHistory:
        return SimilarityHistory(
            loss=loss,
            scale_free_loss=loss
            if objective.normalize
            else sum_over_layers(kernels, scale_free, dict(groups)),
            norms={k: jnp.sqrt(jnp.sum(jnp.square(x))) for k, x in kernels.items()},
        )

    def loss_of(kernels: dict[str, jax.Array]) -> jax.Array:
        return sum_over_layers(kernels, objective, dict(groups))

    def step(carry: tuple, _: None) -> tuple[tuple, SimilarityHistory]:
        kernels, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(kernels)
        updates, state = optimizer.update(gradient, state, kernels)
        moved = optax.apply_updates(kernels, updates)
        if preserve_norm:
            moved = jax.tree.map(with_channel_norms, moved, initial_norms)
        return (moved, state), record(kernels, loss)

    carry = (kernels, optimizer.init(kernels))
    (kernels, _), history = jax.lax.scan(step, carry, length=steps)
    last = record(kernels, loss_of(kernels))
    return kernels, jax.tree.map(
        lambda before, after: jnp.concatenate([before, after[None]]), history, last
    )
