r"""The sum over pairs of output channels, and its derivative, on planes.

Let `Y` be planes of shape `(..., M)` with weights w (`_planes`), and P the sum of the
planes that each channel is paired with: of all other channels, or of its neighbours.

    L = 1/2 sum w <P, Y>,    dL/dY = w P

P of all pairs is S - Y, where S is the sum over all channels, so that all pairs cost no
more than all channels. The scale-free form is the same sum of channels that are scaled to
a similarity of 1 with themselves. Let Y be the planes of those. Scaling a channel does
not change L then: the derivative has no part along Y,

    dL/dY = w (P - q Y),     q = sum w <P, Y> of each channel

The derivatives are written out for speed: what they cost is to read the kernel. They are
computed in passes over a `source`. That of a small window is the kernel itself, whose
planes are faster computed again in each pass than written and read; other planes are
computed once, and are the source (of a large kernel, those of one block of its input
channels at a time: `_blocks`). `once` stands between the passes: XLA would write
planes that two passes share to memory. The source of neighbours starts and ends with a
channel of zeros (`between_zeros`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from convsim_jax._planes import Planes, add_up, once, sum_of, written

PlanesOf = Callable[..., Planes]
Source = Sequence[jax.Array]


def slopes_of_sum(
    planes_of: PlanesOf, source: Source, weights: Sequence[float], *, adjacent: bool
) -> Planes:
    """`dL/dY` of the planes Y of a source, which is arrays `(..., M)`."""
    source, partners_and_planes = partners_of(planes_of, source, adjacent=adjacent)
    partners, _ = partners_and_planes(source)
    return [w * sum_of(P) for w, *P in zip(weights, *partners, strict=True)]


def scale_free_sum_and_slopes(
    planes_of: PlanesOf, source: Source, weights: Sequence[float], *, adjacent: bool
) -> tuple[jax.Array, Planes]:
    """`L` and `dL/dY`, for channels of similarity 1 with themselves, or 0."""
    source, partners_and_planes = partners_of(planes_of, source, adjacent=adjacent)
    q = similarity_with(*partners_and_planes(source), weights)
    source, q = once((source, q))
    slopes = scale_free_slopes(q, *partners_and_planes(source), weights)
    return 0.5 * jnp.sum(q), slopes


def scale_free_slopes(
    q: jax.Array, partners: Sequence[Planes], planes: Planes, weights: Sequence[float]
) -> Planes:
    """`dL/dY` of the channels whose similarities with their partners are q."""
    return [
        w * (sum_of(P) - as_row(q, Y) * Y)
        for w, Y, *P in zip(weights, planes, *partners, strict=True)
    ]


def similarity_with(
    partners: Sequence[Planes], planes: Planes, weights: Sequence[float]
) -> jax.Array:
    """The weighted inner product of each channel with its partners, of shape `(M,)`."""
    terms = [
        w * (P * Y)
        for partner in partners
        for w, P, Y in zip(weights, partner, planes, strict=True)
    ]
    # Two arrays are written: XLA's library, which adds up one that is not, would have
    # all that it is made of written.
    halves = written([sum_of(terms[i::2]) for i in range(min(2, len(terms)))])
    return sum_of([half.sum((0, 1)) for half in halves])


def partners_of(
    planes_of: PlanesOf, source: Source, *, adjacent: bool
) -> tuple[Source, Callable[[Source], tuple[Sequence[Planes], Planes]]]:
    """The source for the next pass, and P and Y as a function of the source in a pass.

    P is in parts, to be added up.
    """

    def neighbours(source: Source) -> tuple[Sequence[Planes], Planes]:
        left, planes, right = (planes_of(*_channels_from(i, source)) for i in range(3))
        return [left, right], planes

    def others(source: Source) -> tuple[Sequence[Planes], Planes]:
        planes = planes_of(*source)
        P = [jnp.expand_dims(s, -1) - Y for s, Y in zip(S, planes, strict=True)]
        return [P], planes

    if adjacent:
        return source, neighbours
    source, S = once((source, add_up(planes_of(*source), -1)))
    return source, others


def _channels_from(start: int, source: Source) -> Source:
    """All channels of a source but two."""
    return [x[..., start : start + x.shape[-1] - 2] for x in source]


def between_zeros(source: Source) -> Source:
    """A source with a zero channel at both ends, whose other channels have neighbours."""
    return [jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)]) for x in source]


def as_row(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` of shape `(M,)`, to be multiplied with `like` of shape `(..., M)`."""
    return x.reshape((1,) * (like.ndim - 1) + x.shape)
