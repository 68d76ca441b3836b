"""What is measured: functions of the kernels of a network, and the yardsticks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import convsim_jax as cs
from experiments.benchmark.networks import Kernels

COPY, SGD, ALL_PAIRS = "copy", "SGD with momentum", "all pairs"
DIRECT = "adjacent pairs by conv_general_dilated"

LOSSES: dict[str, dict[str, Any]] = {
    ALL_PAIRS: {},
    "adjacent pairs": {"pairs": "adjacent"},
    "cross-channel": {"channels": "cross"},
    "cross-channel, adjacent": {"channels": "cross", "pairs": "adjacent"},
    "scale-free": {"normalize": True},
    "scale-free, adjacent": {"normalize": True, "pairs": "adjacent"},
    "scale-free cross-channel": {"normalize": True, "channels": "cross"},
    "scale-free cross-channel, adjacent": {
        "normalize": True,
        "channels": "cross",
        "pairs": "adjacent",
    },
}
PENALTIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "soft orthogonality (SO)": cs.orthogonality.soft_orthogonality,
    "SRIP": cs.orthogonality.spectral_restricted_isometry,
    "OCNN": cs.orthogonality.convolutional_orthogonality,
}


def yardsticks(kernels: Kernels) -> dict[str, tuple[Callable, tuple]]:
    """A copy of the weights, and the optimizer's update of them, with arguments."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    gradient = jax.tree.map(jnp.copy, kernels)

    def update(gradient: Kernels, state: optax.OptState, params: Kernels) -> Any:
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return {
        COPY: (partial(jax.tree.map, jnp.copy), (kernels,)),
        SGD: (update, (gradient, optimizer.init(kernels), kernels)),
    }


def losses() -> dict[str, Callable]:
    """Value and gradient of every option of the loss."""

    def of(options: dict[str, Any]) -> Callable:
        return jax.value_and_grad(lambda kernels: cs.total_similarity(kernels, **options))

    return {name: of(options) for name, options in LOSSES.items()}


def penalties() -> dict[str, Callable]:
    """Value and gradient of the orthogonality penalties, summed over layers."""

    def of(penalty: Callable) -> Callable:
        return jax.value_and_grad(
            lambda kernels: jnp.stack([penalty(k) for k in kernels.values()]).sum()
        )

    return {name: of(penalty) for name, penalty in PENALTIES.items()}


def direct() -> Callable:
    """Value and gradient of the adjacent pairs' loss by its definition."""

    def layer(kernel: jax.Array) -> jax.Array:
        height, width, C, M = kernel.shape
        images, filters = kernel[..., :-1], kernel[..., 1:]
        correlations = lax.conv_general_dilated(
            images.reshape(1, height, width, C * (M - 1)),
            filters.reshape(height, width, 1, C * (M - 1)),
            window_strides=(1, 1),
            padding=((height - 1,) * 2, (width - 1,) * 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=C * (M - 1),
            precision=lax.Precision.HIGHEST,
        )
        return jnp.sum(jnp.square(correlations))

    return jax.value_and_grad(
        lambda kernels: jnp.stack([layer(k) for k in kernels.values()]).sum()
    )
