"""An optax transformation that adds the gradient of Convolutional Similarity."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from convsim_jax._checks import accumulation_dtype, check_strength
from convsim_jax._kernels import GroupCounts, Kernels, Layout, choose_kernels
from convsim_jax._layers import ConvLayers
from convsim_jax._paths import Mask, map_leaves
from convsim_jax._similarity import Channels, Objective, Pairs
from convsim_jax._total import sum_over_layers


class AddConvolutionalSimilarityState(NamedTuple):
    """State of `add_convolutional_similarity`.

    Attributes:
      count: Number of updates so far, at which a schedule of the strength is read.
    """

    count: chex.Array


def add_convolutional_similarity(
    strength: optax.ScalarOrSchedule,
    *,
    mask: Mask | None = None,
    layout: Layout = "HWIO",
    layers: ConvLayers | None = None,
    pairs: Pairs = "all",
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: GroupCounts | None = None,
) -> optax.GradientTransformation:
    r"""Adds the gradient of Convolutional Similarity to the updates of conv kernels.

    .. math:: u \leftarrow u + s \, \nabla L(params)

    Before the optimizer it is coupled, the same as adding `s * L` to the loss; between
    the optimizer's preconditioner and its learning rate it is decoupled, a step of its
    own that no momentum and no second moment sees.

    Args:
      strength: Factor `s >= 0`, a number or a schedule of the number of updates. With
        `normalize=False` in units of the training loss per fourth power of the weights.
      mask: Tree of bools, or a function that makes one; see `conv_kernels`.
      layout: `"HWIO"` (Flax) or `"OIHW"` (Equinox, PyTorch); see `conv_kernels`.
      layers: What `conv_layers` says of the network; see `total_similarity`.
      pairs: `"all"` or `"adjacent"`; see `convolutional_similarity`.
      channels: `"matched"` or `"cross"`; see `convolutional_similarity`.
      normalize: Use the scale-free form, whose gradient cannot shrink a kernel.
      feature_group_count: As in `total_similarity`. To `optax.inject_hyperparams` it is
        one of the `static_args`, and so is a `mask` that is a function.

    Returns:
      An `optax.GradientTransformation`, whose `update` needs `params`. Every update
      keeps its dtype; updates of other leaves, and `None`, pass through.

    Raises:
      ValueError: `strength` is negative or not finite, an option is unknown; from
        `init` and `update`: as `total_similarity`, or `params` is missing.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = {"conv": {"kernel": jnp.ones((1, 1, 1, 2))}}
      >>> optimizer = optax.chain(add_convolutional_similarity(0.5), optax.sgd(0.1))
      >>> state = optimizer.init(params)
      >>> gradients = {"conv": {"kernel": jnp.zeros((1, 1, 1, 2))}}
      >>> updates, state = optimizer.update(gradients, state, params)
      >>> updates["conv"]["kernel"].ravel()  # -0.1 * 0.5 * 2 a b^2, with a = b = 1
      Array([-0.1, -0.1], dtype=float32)

    Source: Belmekki et al., arXiv 2411.03226, section 5 (regularization).
    """
    objective = Objective(pairs, channels, normalize)
    if not callable(strength) and not isinstance(strength, jax.core.Tracer):
        check_strength(strength)

    def chosen(params: optax.Params) -> Kernels:
        return choose_kernels(params, mask, layout, layers, feature_group_count)

    def init(params: optax.Params) -> AddConvolutionalSimilarityState:
        chosen(params)  # a wrong tree is found here, not at the first update
        return AddConvolutionalSimilarityState(count=jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates,
        state: AddConvolutionalSimilarityState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, AddConvolutionalSimilarityState]:
        if params is None:
            raise ValueError(
                "params is None; add_convolutional_similarity needs the parameters: call "
                "update(updates, state, params)"
            )
        kernels = chosen(params)
        # Half precisions are widened before, so that the gradient is added unrounded.
        wide = {
            path: leaf.astype(accumulation_dtype(leaf.dtype))
            for path, leaf in kernels.leaves.items()
        }

        def loss(leaves: dict[str, jax.Array]) -> jax.Array:
            return sum_over_layers(kernels._replace(leaves=leaves), objective)

        gradients = jax.grad(loss)(wide)
        s = strength(state.count) if callable(strength) else strength

        def add(path: str, update: jax.Array) -> jax.Array:
            if path not in gradients:
                return update
            gradient = gradients[path]
            dtype = max(update.dtype, gradient.dtype, key=lambda x: jnp.finfo(x).bits)
            scaled = jnp.asarray(s).astype(dtype) * gradient.astype(dtype)
            return (update.astype(dtype) + scaled).astype(update.dtype)

        count = optax.safe_increment(state.count)
        return map_leaves(add, updates), AddConvolutionalSimilarityState(count)

    return optax.GradientTransformation(init, update)
