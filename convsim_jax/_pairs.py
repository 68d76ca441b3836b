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
zeros.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from convsim_jax._blocks import map_blocks, sum_over_blocks
from convsim_jax._norms import inverse_scale, inverse_sqrt
from convsim_jax._planes import Form, Planes
from convsim_jax._xla import (
    column_sum,
    column_sums,
    elementwise_sum,
    materialize,
    stored_on_cpu,
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
            source, planes_of = materialize(form.planes(kernel)), _stored
        if adjacent:
            source = _between_zeros(source)
            source = stored_on_cpu(materialize(source), source)
            slopes, _ = _neighbours(planes_of, source)
        else:
            planes = planes_of(*source)
            squares = elementwise_sum(
                [w * (Y * Y) for w, Y in zip(form.weights, planes, strict=True)]
            )
            if form.stored:  # one by one: devices then add up sums, and gather none
                S = jnp.stack([x.sum(-1) for x in (*planes, squares)])
            else:
                S = column_sums([*planes, squares])
            kernel, source, (*S, squares) = _last_pass(form, kernel, source, S)
            terms = [w * (s * s) for w, s in zip(form.weights, S, strict=True)]
            value = 0.5 * jnp.sum(elementwise_sum(terms) - squares)
            slopes = _others(S, planes_of(*source))
        slopes = [w * P for w, P in zip(form.weights, slopes, strict=True)]
        gradient, product = form.gradient(slopes, kernel, with_product=adjacent)
        # Euler's identity: the sum is of degree 4 in the kernel.
        return gradient, 0.25 * product if adjacent else value

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
    # A rough scale comes first: similarities are of degree 4, and those of small kernels
    # would vanish. Planes that are stored are scaled, of others the taps.
    if form.stored:
        planes = materialize(form.planes(kernel))
        rough = inverse_scale(planes[0])
        own = _own_similarity([rough * Y for Y in planes], form.weights)
        scale = materialize(rough * _as_row(inverse_sqrt(own), kernel))
        source: Source = [scale * Y for Y in planes]
        planes_of: PlanesOf = _stored
    else:
        rough = inverse_sqrt(jnp.sum(jnp.square(kernel), (0, 1), keepdims=True))
        kernel, rough = materialize((kernel, rough))
        own = _own_similarity(form.planes(kernel, rough), form.weights)
        fourth_root = inverse_sqrt(own * inverse_sqrt(own))
        scale = materialize(rough * _as_row(fourth_root, kernel))
        source, planes_of = [kernel, scale], form.planes
    if adjacent:
        source = _between_zeros(source)
        source = stored_on_cpu(materialize(source), source)
    source, partners_and_planes = _partners(planes_of, source, adjacent=adjacent)
    q = _similarity(*partners_and_planes(source), form.weights)
    if adjacent and not form.stored:
        kernel, stored, q = materialize((kernel, source, q))
        source = stored_on_cpu(stored, _between_zeros([kernel, scale]))
    else:
        kernel, source, q = _last_pass(form, kernel, source, q)
    slopes = _scale_free_slopes(q, *partners_and_planes(source), form.weights)
    if form.stored:
        slopes = [factor * scale * slope for slope in slopes]
        gradient, _ = form.gradient(slopes, kernel)
    else:
        gradient, _ = form.gradient(slopes, kernel, scale=factor * scale**2)
    return 0.5 * factor * jnp.sum(q), gradient


def _scale_free_in_blocks(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The same, in three passes over the blocks, each of which computes their planes."""
    energy = jnp.sum(jnp.square(kernel), (0, 1), keepdims=True)
    rough = inverse_sqrt(energy) ** 2

    def with_itself(block: jax.Array) -> jax.Array:
        return _own_similarity([rough * Y for Y in form.planes(block)], form.weights)

    own = sum_over_blocks(with_itself, kernel, form.blocks)
    scale = rough * _as_row(inverse_sqrt(own), kernel)

    def partners_and_planes(block: jax.Array) -> tuple[Planes, Planes]:
        source = materialize([scale * Y for Y in form.planes(block)])
        if adjacent:
            source = _between_zeros(source)
        source, of_source = _partners(_stored, source, adjacent=adjacent)
        return of_source(source)

    def with_partners(block: jax.Array) -> jax.Array:
        return _similarity(*partners_and_planes(block), form.weights)

    q = sum_over_blocks(with_partners, kernel, form.blocks)

    def gradient_of(block: jax.Array) -> tuple[jax.Array, jax.Array]:
        slopes = _scale_free_slopes(q, *partners_and_planes(block), form.weights)
        return form.gradient([factor * scale * slope for slope in slopes], block)

    gradient, _ = map_blocks(gradient_of, kernel, form.blocks)
    return 0.5 * factor * jnp.sum(q), gradient


def _own_similarity(planes: Planes, weights: Sequence[float]) -> jax.Array:
    """The similarity of each channel to itself, of shape `(M,)`."""
    return _similarity(planes, planes, weights)


def _similarity(partners: Planes, planes: Planes, weights: Sequence[float]) -> jax.Array:
    """The similarity of each channel to its partners, of shape `(M,)`."""
    terms = zip(weights, partners, planes, strict=True)
    return column_sum([w * (P * Y) for w, P, Y in terms])


def _scale_free_slopes(
    q: jax.Array, partners: Planes, planes: Planes, weights: Sequence[float]
) -> Planes:
    """`dL/dY` of the channels whose similarities to their partners are q."""
    terms = zip(weights, partners, planes, strict=True)
    return [w * (P - _as_row(q, Y) * Y) for w, P, Y in terms]


def _partners(
    planes_of: PlanesOf, source: Source, *, adjacent: bool
) -> tuple[Source, Callable[[Source], tuple[Planes, Planes]]]:
    """The source for the next pass, and P and Y as a function of the source in a pass."""
    if adjacent:
        return source, partial(_neighbours, planes_of)
    source, S = materialize((source, column_sums(planes_of(*source))))

    def others(source: Source) -> tuple[Planes, Planes]:
        planes = planes_of(*source)
        return _others(S, planes), planes

    return source, others


def _last_pass(
    form: Form, kernel: jax.Array, source: Source, results: Any
) -> tuple[jax.Array, Source, Any]:
    """Kernel, source and results of the passes before, for the last one."""
    source, results = materialize((source, results))
    if not form.stored:
        kernel = source[0]  # which is read once
    return kernel, source, results


def _others(sums_of_planes: jax.Array, planes: Planes) -> Planes:
    """P of all pairs."""
    return [S[..., None] - Y for S, Y in zip(sums_of_planes, planes, strict=True)]


def _neighbours(planes_of: PlanesOf, source: Source) -> tuple[Planes, Planes]:
    """P of adjacent pairs, and Y, of a source between zeros."""

    def channels_from(start: int) -> Planes:
        size = source[0].shape[-1] - 2
        return planes_of(*(x[..., start : start + size] for x in source))

    left, planes, right = map(channels_from, range(3))
    return [a + b for a, b in zip(left, right, strict=True)], planes


def _between_zeros(source: Source) -> Source:
    """A source with a zero channel at both ends, whose other channels have neighbours."""
    return [jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)]) for x in source]


def _as_row(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` of shape `(M,)`, to be multiplied with `like` of shape `(..., M)`."""
    return x.reshape((1,) * (like.ndim - 1) + x.shape)


def _stored(*planes: jax.Array) -> Planes:
    """The planes of a source that is planes."""
    return planes
