r"""The sum over pairs of output channels, and its derivative, on planes.

Let `Y` be planes of shape `(rows, M)` with weights w, whose weighted inner products are
the similarities (`_autocorrelation`). With S the sum of Y over the channels, and N the
sum over the two neighbours of each,

    all pairs:       L = 1/2 sum w (|S|^2 - |Y|^2),    dL/dY = w (S - Y)
    adjacent pairs:  L = 1/2 sum w <N, Y>,             dL/dY = w N

so that all pairs cost no more than all channels. The scale-free form is the same of
`s Y`, where `s^-2 = sum w <Y, Y>` of each channel makes its similarity with itself 1, and

    all pairs:       dL/dY = w s (S - q s Y),          q = sum w <S, s Y> of each channel
    adjacent pairs:  dL/dY = w s (N - q s Y),          q = sum w <N, s Y>

The derivatives are written out, not left to autodiff, for speed alone: they read and
write every array as large as the planes once. XLA would compute planes again for each of
their uses, and reduce them while it does, at a fraction of the speed of memory:
`computed_once` keeps it from that, and sums of a plane are its products with vectors.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._autocorrelation import sum_of
from convsim_jax._norms import inverse_sqrt

Planes = list[jax.Array]

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
computed_once: Callable = lax.optimization_barrier


def pair_sum_and_gradient(
    planes: Planes, weights: list[float], *, adjacent: bool
) -> tuple[jax.Array, Planes]:
    """`L` and `dL/dY`, for planes of shape `(rows, M)` with weights."""
    planes = computed_once(planes)
    if adjacent:
        N = [sum_of_neighbours(Y) for Y in planes]
        value = 0.5 * jnp.sum(_inner_products(weights, N, planes))
        return value, [w * n for w, n in zip(weights, N, strict=True)]
    S = [computed_once(matmul(Y, jnp.ones(Y.shape[1], Y.dtype))) for Y in planes]
    value = 0.5 * sum_of(
        [
            w * (jnp.sum(s * s) - jnp.sum(Y * Y))
            for w, s, Y in zip(weights, S, planes, strict=True)
        ]
    )
    return value, [
        w * (s[:, None] - Y) for w, s, Y in zip(weights, S, planes, strict=True)
    ]


def scale_free_pair_sum_and_gradient(
    planes: Planes, weights: list[float], power: jax.Array, *, adjacent: bool
) -> tuple[jax.Array, Planes]:
    """The same of the scale-free form.

    Similarities are of degree 4 in the weights, and those of small kernels would vanish:
    they are divided by each channel's `power` first, its kernel's square norm, `(M,)`.
    """
    planes = computed_once(planes)
    unit = jnp.square(inverse_sqrt(power))
    unit_planes = [unit[None] * Y for Y in planes]
    square = _inner_products(weights, unit_planes, unit_planes)
    scale = computed_once(unit * inverse_sqrt(square))
    if adjacent:
        partners = [sum_of_neighbours(scale[None] * Y) for Y in planes]
        q = computed_once(scale * _inner_products(weights, partners, planes))
        value = 0.5 * jnp.sum(q)
    else:
        S = [computed_once(matmul(Y, scale)) for Y in planes]
        q = scale * sum_of(
            [w * matmul(s, Y) for w, s, Y in zip(weights, S, planes, strict=True)]
        )
        value = 0.5 * jnp.sum(computed_once(q) - (square > 0).astype(q.dtype))
        partners = [s[:, None] for s in S]
    slope = computed_once(scale * q)[None]
    gradient = [
        (w * scale)[None] * (P - slope * Y)
        for w, P, Y in zip(weights, partners, planes, strict=True)
    ]
    return value, gradient


def sum_of_channels(X: jax.Array) -> jax.Array:
    """Planes of shape `(n, C, M)` summed over the input channels, to `(n, 1, M)`."""
    return matmul(jnp.ones((X.shape[0], 1, X.shape[1]), X.dtype), computed_once(X))


def sum_of_neighbours(Y: jax.Array) -> jax.Array:
    """The sum over the one or two channels next to each."""
    padded = computed_once(jnp.pad(Y, ((0, 0), (1, 1))))
    return computed_once(padded[:, :-2] + padded[:, 2:])


def _inner_products(weights: list[float], X: Planes, Y: Planes) -> jax.Array:
    """Weighted inner product of each channel's planes, of shape `(M,)`."""
    if len({y.shape for y in Y}) > 1:
        return sum_of(
            [w * jnp.sum(x * y, 0) for w, x, y in zip(weights, X, Y, strict=True)]
        )
    product = sum_of([w * (x * y) for w, x, y in zip(weights, X, Y, strict=True)])
    return computed_once(product).sum(0)
