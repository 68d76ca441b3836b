"""A training step of ResNet-18 on images of CIFAR-10's size: what the loss adds to."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import convsim_jax as cs
from experiments.benchmark.timing import Program, compiled
from experiments.models.resnet import ResNet

STEP, LOSS = "training step", "all pairs of its kernels"


def programs(batch_size: int) -> dict[str, Program]:
    """A step with SGD and momentum, in bfloat16 on accelerators; and the loss alone."""
    on_cpu = jax.default_backend() == "cpu"
    model = ResNet(classes=10, dtype=jnp.float32 if on_cpu else jnp.bfloat16)
    key = jax.random.key(0)
    images = jax.random.normal(key, (batch_size, 32, 32, 3))
    labels = jax.random.randint(key, (batch_size,), 0, 10)
    variables = model.init(key, images[:1])
    params, statistics = variables["params"], variables["batch_stats"]
    optimizer = optax.sgd(0.1, momentum=0.9)

    def step(params: Any, statistics: Any, state: Any) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = model.apply(
                {"params": params, "batch_stats": statistics},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), labels
            )
            return losses.mean(), updated["batch_stats"]

        (value, updated), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        return value, optax.apply_updates(params, updates), updated, state

    state = optimizer.init(params)
    return {
        STEP: compiled(step, params, (params, statistics, state)),
        LOSS: compiled(jax.value_and_grad(cs.total_similarity), params),
    }
