"""Kernels of one channel under gradient descent: the experiments of the theory.

One seed each, as pure functions; `experiments.theory` maps them over seeds. Sections
are those of Belmekki et al., arXiv 2411.03226.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import convsim_jax as cs

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "feature maps": lambda maps: maps,
    "after ReLU": jax.nn.relu,
    "after ELU": jax.nn.elu,
    "after LeakyReLU": jax.nn.leaky_relu,
}
KERNEL_COUNT = 4
TRAINED_PAIRS = ((0, 1), (1, 2), (2, 3))


class Descent(NamedTuple):
    """Two kernels under SGD. Over seeds, every array has one more axis in front."""

    loss: jax.Array
    """After 0, 1, ..., steps steps: shape `(steps + 1,)`."""
    similarity: jax.Array
    """Of the two feature maps without activation: shape `(steps + 1,)`."""
    reductions: dict[str, jax.Array]
    """Scalars: of the kernels' cosine, and of the maps' for each activation."""


def valid_maps(kernel: jax.Array, signal: jax.Array) -> jax.Array:
    r"""Feature maps where the whole kernel lies inside the signal.

    .. math:: F_i[t] = \sum_n K_i[n]\, X[t + n]

    Args:
        kernel: shape `(N, 1, M)`.
        signal: shape `(T,)`, `T >= N`.

    Returns:
        Shape `(T - N + 1, M)`.

    Example:
        >>> kernel = jnp.array([[1.0, 0.0], [2.0, -1.0]])[:, None]
        >>> valid_maps(kernel, jnp.array([1.0, 2.0, 3.0])).tolist()
        [[5.0, -2.0], [8.0, -3.0]]
    """
    # Shifted products: XLA fuses them under vmap over seeds. The matrix product of the
    # signal's windows and the kernel took seven times as long on a CPU.
    taps = kernel.shape[0]
    length = signal.size - taps + 1
    maps = [signal[n : n + length, None] * kernel[n] for n in range(taps)]
    return jnp.sum(jnp.stack(maps), axis=0)


def squared_cosine(kernel: jax.Array) -> jax.Array:
    """Squared cosine of two kernels, shape `(N, 1, 2)`: the loss of section 4.1."""
    return cs.kernel_cosine_similarity(kernel)[0, 1] ** 2


def pair_similarity(kernel: jax.Array) -> jax.Array:
    """CS of two kernels, shape `(N, 1, 2)`: the loss of sections 4.3 and 4.4."""
    # The one adjacent pair, a plain product; "all" would be a difference of squares.
    return cs.convolutional_similarity(kernel, pairs="adjacent")


def relative_reduction(before: jax.Array, after: jax.Array) -> jax.Array:
    """`(|before| - |after|) / |before|`."""
    return (jnp.abs(before) - jnp.abs(after)) / jnp.abs(before)


def descend(
    kernel: jax.Array,
    signal: jax.Array,
    *,
    loss: Callable[[jax.Array], jax.Array],
    learning_rate: float,
    steps: int,
) -> Descent:
    """Minimises `loss` by SGD and compares the feature maps before and after.

    The similarity of two maps is their |cosine|. Their inner product would fall with
    the kernels' norms alone, and by 99.8 % in section 4.3, where the reference says
    84.6 %. After every activation, the similarity at the end stands against that of
    the first maps *without* activation (no matter here: uniform kernels and signals
    make positive maps). A pair with a map that ReLU leaves all zero counts as 0.

    Args:
        kernel: shape `(N, 1, 2)`.
        signal: shape `(T,)`.
        loss: scalar function of the kernel.
        learning_rate: of SGD.
        steps: number of SGD steps.
    """

    def similarity(kernel: jax.Array, activation: str = "feature maps") -> jax.Array:
        maps = ACTIVATIONS[activation](valid_maps(kernel, signal))
        return cs.feature_map_similarity(maps[None])

    def cosine(kernel: jax.Array) -> jax.Array:
        return cs.kernel_cosine_similarity(kernel)[0, 1]

    def step(kernel: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        value, gradient = jax.value_and_grad(loss)(kernel)
        return kernel - learning_rate * gradient, (value, similarity(kernel))

    last, (losses, similarities) = jax.lax.scan(step, kernel, length=steps)
    return Descent(
        loss=jnp.append(losses, loss(last)),
        similarity=jnp.append(similarities, similarity(last)),
        reductions={"kernels' cosine": relative_reduction(cosine(kernel), cosine(last))}
        | {
            name: relative_reduction(similarity(kernel), similarity(last, name))
            for name in ACTIVATIONS
        },
    )


def train_pairs(kernel: jax.Array, *, learning_rate: float, rounds: int) -> jax.Array:
    """SGD on the CS of `TRAINED_PAIRS`, one step on each pair in turn: section 4.4.

    Args:
        kernel: shape `(N, 1, 4)`.
        learning_rate: of SGD.
        rounds: how often every pair has its turn.

    Returns:
        CS matrices after 0, 1, ..., rounds rounds: shape `(rounds + 1, 4, 4)`.
    """

    def similarity_of(kernel: jax.Array, pair: tuple[int, int]) -> jax.Array:
        return pair_similarity(kernel[..., jnp.array(pair)])

    def one_round(kernel: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        before = cs.similarity_matrix(kernel)
        for pair in TRAINED_PAIRS:
            kernel = kernel - learning_rate * jax.grad(similarity_of)(kernel, pair)
        return kernel, before

    last, matrices = jax.lax.scan(one_round, kernel, length=rounds)
    return jnp.concatenate([matrices, cs.similarity_matrix(last)[None]])
