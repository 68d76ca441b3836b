r"""The sum over pairs of output channels, and its gradient.

Let `Y` be planes of shape `(..., M)` with weights w (`_planes`), and P the sum of the
planes that each channel is paired with: of all other channels, or of its neighbours.

    L = 1/2 sum w <P, Y>,    dL/dY = w P

P of all pairs is S - Y, where S is the sum over all channels, so that all pairs cost no
more than all channels. The scale-free form is the same sum of channels that are scaled to
a similarity of 1 with themselves. Let Y be the planes of those. Scaling a channel does
not change L then: the derivative has no part along Y,

    dL/dY = w (P - q Y),     q = sum w <P, Y> of each channel

The gradients are written out for speed: what they cost is to read the kernel. They are
computed in passes over a `source`. That of a small window is the kernel itself, whose
planes are faster computed again in each pass than written and read; other planes are
stored, and are the source (of a large kernel, those of one block of its input channels at
a time: `_blocks`). `materialize` stands between the passes: XLA would write planes that
two passes share to memory. The source of neighbours starts and ends with a channel of
zeros (`_between_zeros`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from convsim_jax._blocks import map_blocks, sum_over_blocks
from convsim_jax._norms import inverse_sqrt
from convsim_jax._planes import Form, Planes
from convsim_jax._xla import (
    elementwise_sum,
    in_one_pass,
    materialize,
    sums_in_one_pass,
)

PlanesOf = Callable[..., Planes]
Source = Sequence[jax.Array]


def number_of_pairs(channels: int, *, adjacent: bool) -> int:
    """Pairs among the output channels of one group."""
    return channels - 1 if adjacent else channels * (channels - 1) // 2


def sum_and_gradient(
    form: Form, kernel: jax.Array, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The sum over pairs of a kernel `(taps, C, M)`, and its gradient."""

    def of_block(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        source: Source = [kernel]
        planes_of: PlanesOf = form.planes
        if form.stored:
            source, planes_of = materialize(planes_of(kernel)), _stored
        if adjacent:
            source = materialize(_between_zeros(source))
        source, partners_and_planes = _partners(planes_of, source, adjacent=adjacent)
        partners, _ = partners_and_planes(source)
        slopes = [
            w * elementwise_sum(P) for w, *P in zip(form.weights, *partners, strict=True)
        ]
        gradient, product = form.gradient(slopes, kernel)
        # Euler's identity: the sum is of degree 4 in the kernel.
        return gradient, 0.25 * product

    gradient, value = map_blocks(of_block, kernel, form.blocks)
    return value, gradient


def scale_free_sum_and_gradient(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The scale-free sum over pairs, times a factor, and its gradient."""
    in_passes = _scale_free if form.blocks == 1 else _scale_free_in_blocks
    return in_passes(form, kernel, factor, adjacent=adjacent)


def _scale_free(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    to_norm = _scale_to_norm_one(kernel)
    planes = form.planes(kernel, _as_row(to_norm, kernel))
    to_one = _scale_to_similarity_one(_similarities([planes], planes, form.weights))
    scale = materialize(_as_row(to_norm * to_one, kernel))
    source: Source = [kernel, scale]
    planes_of: PlanesOf = form.planes
    if form.stored:
        # They are of degree 2 in the kernel.
        source = [_as_row(to_one**2, Y) * Y for Y in materialize(planes)]
        planes_of = _stored
    if adjacent:
        source = _between_zeros(source)
    source = materialize(source)
    source, partners_and_planes = _partners(planes_of, source, adjacent=adjacent)
    q = _similarities(*partners_and_planes(source), form.weights)
    source, q = materialize((source, q))
    slopes = _scale_free_slopes(q, *partners_and_planes(source), form.weights)
    gradient, product = form.gradient([factor * slope for slope in slopes], kernel, scale)
    # Without the inner product, windows of one tap would leave a reduction of a single
    # operand, and XLA's library would have that operand written first.
    value, _ = materialize((0.5 * jnp.sum(q), product))
    return factor * value, gradient


def _scale_free_in_blocks(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The same, in three passes over the blocks, each of which computes their planes."""
    to_norm = _scale_to_norm_one(kernel)

    def with_itself(block: jax.Array) -> jax.Array:
        planes = form.planes(block, _as_row(to_norm, block))
        return _similarities([planes], planes, form.weights)

    itself = sum_over_blocks(with_itself, kernel, form.blocks)
    scale = _as_row(to_norm * _scale_to_similarity_one(itself), kernel)

    def partners_and_planes(block: jax.Array) -> tuple[Sequence[Planes], Planes]:
        source = materialize(form.planes(block, scale))
        if adjacent:
            source = _between_zeros(source)
        source, of_source = _partners(_stored, source, adjacent=adjacent)
        return of_source(source)

    def with_partners(block: jax.Array) -> jax.Array:
        return _similarities(*partners_and_planes(block), form.weights)

    q = sum_over_blocks(with_partners, kernel, form.blocks)

    def gradient_of(block: jax.Array) -> tuple[jax.Array, jax.Array]:
        slopes = _scale_free_slopes(q, *partners_and_planes(block), form.weights)
        return form.gradient([factor * slope for slope in slopes], block, scale)

    gradient, _ = map_blocks(gradient_of, kernel, form.blocks)
    return 0.5 * factor * jnp.sum(q), gradient


def _scale_to_norm_one(kernel: jax.Array) -> jax.Array:
    """What comes first, as the similarities of small kernels would vanish."""
    return inverse_sqrt(jnp.sum(jnp.square(kernel), axis=(0, 1)))


def _scale_to_similarity_one(with_itself: jax.Array) -> jax.Array:
    """Of each channel with itself: it is of degree 4."""
    return inverse_sqrt(with_itself * inverse_sqrt(with_itself))


def _scale_free_slopes(
    q: jax.Array, partners: Sequence[Planes], planes: Planes, weights: Sequence[float]
) -> Planes:
    """`dL/dY` of the channels whose similarities with their partners are q."""
    return [
        w * (elementwise_sum(P) - _as_row(q, Y) * Y)
        for w, Y, *P in zip(weights, planes, *partners, strict=True)
    ]


def _similarities(
    partners: Sequence[Planes], planes: Planes, weights: Sequence[float]
) -> jax.Array:
    """The similarity of each channel to its partners, of shape `(M,)`."""
    terms = [
        w * (P * Y)
        for partner in partners
        for w, P, Y in zip(weights, partner, planes, strict=True)
    ]
    # Two arrays are written: XLA's library, which adds up one that is not, would have
    # all that it is made of written.
    halves = [elementwise_sum(terms[i::2]) for i in range(min(2, len(terms)))]
    return elementwise_sum([half.sum((0, 1)) for half in in_one_pass(halves)])


def _partners(
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
    source, S = materialize((source, sums_in_one_pass(planes_of(*source), -1)))
    return source, others


def _channels_from(start: int, source: Source) -> Source:
    """All channels of a source but two."""
    return [x[..., start : start + x.shape[-1] - 2] for x in source]


def _between_zeros(source: Source) -> Source:
    """A source with a zero channel at both ends, whose other channels have neighbours."""
    return [jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)]) for x in source]


def _as_row(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` of shape `(M,)`, to be multiplied with `like` of shape `(..., M)`."""
    return x.reshape((1,) * (like.ndim - 1) + x.shape)


def _stored(*planes: jax.Array) -> Planes:
    """The planes of a source that is planes."""
    return planes
