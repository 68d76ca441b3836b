r"""The sum over pairs of output channels, and its derivative, on planes.

Let `Y` be planes of shape `(..., M)` with weights w (`_planes`). With S the sum of Y over
the channels, and N the sum over the two neighbours of each,

    all pairs:       L = 1/2 sum w <S - Y, Y>,    dL/dY = w (S - Y)
    adjacent pairs:  L = 1/2 sum w <N, Y>,        dL/dY = w N

so that all pairs cost no more than all channels. The scale-free form is the same sum, of
channels scaled to a similarity of 1 with themselves. Let Y be the planes of those. To
make a channel longer does not change it then, and with P for either S or N,

    q = sum w <P, Y> of each channel,             dL/dY = w (P - q Y)

The derivatives are written out for speed: what they cost is to read the kernel. They are
computed in passes over the `source`: the kernel, or planes of it that are kept. No plane
is kept between passes: those of small windows are faster computed again than read.
`once` separates the passes, for planes that two passes share are written to memory.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._planes import Planes, add_up, once, sum_of

PlanesOf = Callable[[Any], Planes]

product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def slopes_of_sum(
    planes_of: PlanesOf, source: Any, weights: Sequence[float], *, adjacent: bool
) -> Planes:
    """`dL/dY` of the planes Y of a source, a tree of arrays `(..., M)`."""
    source, partners_of = _partners(planes_of, source, adjacent=adjacent)
    partners, planes = partners_of(source), planes_of(source)
    if adjacent:
        return [w * P for w, P in zip(weights, partners, strict=True)]
    return [w * (P - Y) for w, P, Y in zip(weights, partners, planes, strict=True)]


def scale_free_sum_and_slopes(
    planes_of: PlanesOf, source: Any, weights: Sequence[float], *, adjacent: bool
) -> tuple[jax.Array, Planes]:
    """`L`, for channels of similarity 1 with themselves (or 0), and `dL/dY`."""
    source, partners_of = _partners(planes_of, source, adjacent=adjacent)
    q = similarity_with(partners_of(source), planes_of(source), weights)
    source, q = once((source, q))
    partners, planes = partners_of(source), planes_of(source)
    slopes = [
        w * (P - as_row(q, Y) * Y)
        for w, P, Y in zip(weights, partners, planes, strict=True)
    ]
    return 0.5 * jnp.sum(q), slopes


def similarity_with(
    partners: Planes, planes: Planes, weights: Sequence[float]
) -> jax.Array:
    """The weighted inner product of each channel with its partner, of shape `(M,)`."""
    terms = [w * (P * Y) for w, P, Y in zip(weights, partners, planes, strict=True)]
    rows = once(sum_of(terms)).reshape(-1, terms[0].shape[-1])
    return product(jnp.ones(rows.shape[0], rows.dtype), rows)


def _partners(
    planes_of: PlanesOf, source: Any, *, adjacent: bool
) -> tuple[Any, PlanesOf]:
    """What each channel is paired with, S or N: a function of the source in a pass."""

    def neighbours(source: Any) -> Planes:
        padded = once(jax.tree.map(_between_zeros, source))
        left = planes_of(jax.tree.map(lambda x: x[..., :-2], padded))
        right = planes_of(jax.tree.map(lambda x: x[..., 2:], padded))
        return [L + R for L, R in zip(left, right, strict=True)]

    if adjacent:
        return source, neighbours
    source, S = once((source, add_up(planes_of(source), -1)))
    return source, lambda _: [s[..., None] for s in S]


def _between_zeros(x: jax.Array) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)])


def as_row(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` of shape `(M,)`, to be multiplied with `like` of shape `(..., M)`."""
    return x.reshape((1,) * (like.ndim - 1) + x.shape)
