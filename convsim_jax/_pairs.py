r"""The sum over pairs of output channels, and its derivative, on planes.

Let `Y` be planes of shape `(n, C, groups, size)` with weights w, whose weighted inner
products are the similarities (`_autocorrelation`), and let `P` add up the partners of
each channel: all others of its group, or its neighbours. `P` is linear and symmetric, so

    L     = 1/2 sum_w <Y, P(Y)>
    dL/dY = w P(Y)

and the sum over all pairs costs no more than the sum over channels, `P(Y) = sum(Y) - Y`.
The scale-free form is the same of `s Y`, where `1/s^2 = sum_w <Y, Y>` of each channel:

    dL/dY = w s (P(s Y) - r s Y),   r = sum_w <P(s Y), s Y> of each channel.

The derivative is written out, not left to autodiff, for speed alone: every array as large
as the planes is read and written once. XLA would compute planes again for each of their
uses, or reduce them where they are still to be computed, at a fraction of the speed:
barriers make it keep them, and reductions are products with vectors.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._autocorrelation import sum_of
from convsim_jax._norms import inverse_sqrt

Planes = list[jax.Array]

computed_once: Callable = lax.optimization_barrier


def pair_sum_and_gradient(
    planes: Planes,
    weights: list[float],
    *,
    adjacent: bool,
    power: jax.Array | None = None,
) -> tuple[jax.Array, Planes]:
    """`L` and `dL/dY`, for planes of shape `(n, C, groups, size)` with weights.

    Scale-free where `power` is given, the square norm of each channel's kernel, of shape
    `(groups, size)`: similarities are of degree 4 in the weights, and those of small ones
    would vanish if they were not divided by it.
    """
    planes = computed_once(planes)
    partners = _adjacent_partners if adjacent else _all_partners
    if power is None:
        scale = jnp.ones((1, 1, *planes[0].shape[2:]), planes[0].dtype)
    else:
        unit = jnp.square(inverse_sqrt(power))[None, None]
        unit_planes = [unit * Y for Y in planes]
        norms = _inner_products(weights, unit_planes, unit_planes)
        scale = computed_once(unit * inverse_sqrt(norms))
    of_partners = [partners(scale, Y) for Y in planes]
    similarity = computed_once(scale * _inner_products(weights, of_partners, planes))
    if power is None:
        gradient = of_partners
    else:
        gradient = [
            scale * (P - similarity * (scale * Y))
            for P, Y in zip(of_partners, planes, strict=True)
        ]
    gradient = [w * G for w, G in zip(weights, gradient, strict=True)]
    if planes[0].shape[1] == 1:
        gradient = computed_once(gradient)  # small, and added to every input channel
    return 0.5 * jnp.sum(similarity), gradient


def sum_over_channels(X: jax.Array) -> jax.Array:
    """Planes of shape `(n, C, M)` summed to `(n, 1, M)`."""
    ones = jnp.ones((X.shape[0], 1, X.shape[1]), X.dtype)
    return jnp.matmul(ones, computed_once(X), precision=lax.Precision.HIGHEST)


def _all_partners(scale: jax.Array, Y: jax.Array) -> jax.Array:
    """The sum of `scale * Y` over all other channels of the group."""
    n, C, groups, size = Y.shape
    if groups == 1:
        total = jnp.matmul(
            Y.reshape(n * C, size), scale.ravel(), precision=lax.Precision.HIGHEST
        )
    else:
        total = jnp.sum(scale * Y, -1)
    return computed_once(total).reshape(n, C, groups, 1) - scale * Y


def _adjacent_partners(scale: jax.Array, Y: jax.Array) -> jax.Array:
    """The sum of `scale * Y` over the neighbours of each channel in its group."""
    padded = computed_once(jnp.pad(scale * Y, [(0, 0)] * (Y.ndim - 1) + [(1, 1)]))
    return computed_once(padded[..., :-2] + padded[..., 2:])


def _inner_products(weights: list[float], X: Planes, Y: Planes) -> jax.Array:
    """Weighted inner product of each channel's planes: `(1, 1, groups, size)`."""
    product = sum_of(
        [
            w * jnp.sum(x * y, 0, keepdims=True)
            for w, x, y in zip(weights, X, Y, strict=True)
        ]
    )
    return computed_once(product).sum(1, keepdims=True)
