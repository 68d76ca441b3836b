"""Passes over a kernel, a block of its input channels at a time.

What a pass makes of the kernel may be several times as large as the kernel: then only
that of one block exists at a time.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._xla import default_is_cpu

# Kernels of up to so many weights are one block, others at least so many blocks.
SMALL, BLOCKS = 2**15, 8

# One CPU is faster on more blocks, of about so many weights, which its caches hold.
CACHED = 2**14


def number_of_blocks(kernel: jax.Array, groups: int) -> int:
    """How many blocks of input channels are made of each group's kernel.

    Args:
      kernel: Of one group, of shape `(*window, C, M)`.
      groups: Number of groups, whose blocks are computed together.

    Returns:
      A divisor of C. On a mesh of D devices, over which input channels may be sharded,
      a divisor of C / gcd(C, D): every device then holds its part of each block.
    """
    size, C = groups * kernel.size, kernel.shape[-2]
    if size <= SMALL:
        return 1
    devices = max(1, jax.typeof(kernel).sharding.mesh.size)
    cached = devices == 1 and default_is_cpu()
    wanted = max(BLOCKS, size // CACHED) if cached else BLOCKS
    channels = C // math.gcd(C, devices)
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    return min((n for n in divisors if n >= wanted), default=channels)


def sum_over_blocks(
    of_block: Callable[[jax.Array], Any], kernel: jax.Array, blocks: int
) -> Any:
    """Sums over the blocks of a kernel `(taps, C, M)` of the arrays made of each."""
    if blocks == 1:
        return of_block(kernel)

    def add(i: Any, sums: Any) -> Any:
        return jax.tree.map(jnp.add, sums, of_block(_block(kernel, blocks, i)))

    return lax.fori_loop(1, blocks, add, of_block(_block(kernel, blocks, 0)))


def map_blocks(
    of_block: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    kernel: jax.Array,
    blocks: int,
) -> tuple[jax.Array, jax.Array]:
    """The array that is made block by block, like the kernel, and the sum of a scalar."""
    if blocks == 1:
        return of_block(kernel)

    def step(i: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        result, total = state
        part, term = of_block(_block(kernel, blocks, i))
        return lax.dynamic_update_index_in_dim(result, part, i, 2), total + term

    zero = jnp.sum(kernel[:0])  # which varies as the kernel does under `shard_map`
    start = jnp.zeros_like(_split(kernel, blocks)) + zero, zero
    result, total = lax.fori_loop(0, blocks, step, start)
    return result.reshape(kernel.shape), total


def _block(kernel: jax.Array, blocks: int, i: Any) -> jax.Array:
    return lax.dynamic_index_in_dim(_split(kernel, blocks), i, 2, keepdims=False)


def _split(kernel: jax.Array, blocks: int) -> jax.Array:
    """The blocks, on axis 2: each is every n-th input channel.

    A block of successive channels would lie on few devices where channels are sharded.
    """
    taps, C, M = kernel.shape
    return kernel.reshape(taps, C // blocks, blocks, M)
