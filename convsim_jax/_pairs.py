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
from typing import Any

import jax
import jax.numpy as jnp

from convsim_jax._blocks import map_blocks, sum_over_blocks
from convsim_jax._norms import inverse_scale, inverse_sqrt
from convsim_jax._planes import Form, Planes, Weights
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
    # Euler's identity: the sum is of degree 4 in the kernel.
    by_euler = adjacent and not form.summed

    def of_block(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        source = form.source(kernel)
        if adjacent:
            partners, planes = _neighbours(form.planes, [form.one * source])
        else:
            planes = form.planes(source)
            sums = _sums(form, [*planes, _squares(planes, form.weights)])
            kernel, source, sums = _next_pass(kernel, source, form.one * sums)
            S, squares = sums[:-1], sums[-1]
            partners = _others(S, form.planes(source))
        slopes = [w * P for w, P in zip(form.weights, partners, strict=True)]
        gradient, product = form.gradient(slopes, kernel, with_product=by_euler)
        if adjacent:
            of_channels = _similarity(partners, planes, form.weights)
            return gradient, 0.25 * product if by_euler else 0.5 * jnp.sum(of_channels)
        return gradient, 0.5 * jnp.sum(_squares(S, form.weights) - squares)

    gradient, value = map_blocks(of_block, kernel, form.blocks)
    return value, gradient


def scale_free_sum_and_gradient(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The scale-free sum over pairs, times a factor, and its gradient."""
    in_passes = _scale_free if form.blocks == 1 else _scale_free_in_blocks
    value, gradient = in_passes(form, kernel, factor, adjacent=adjacent)
    return factor * value, gradient


def _scale_free(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    def scaled(source: jax.Array, scale: jax.Array) -> Planes:
        return [scale * Y for Y in form.planes(source)]

    def partners_and_planes() -> tuple[Planes, Planes]:
        if adjacent:
            return _neighbours(scaled, [form.one * source, scale])
        planes = scaled(source, scale)
        return _others(S, planes), planes

    source = form.source(kernel)
    if form.summed and source.size == kernel.shape[-1]:  # of one lag: all are alike
        value = _pairs_of_nonzero((source * inverse_scale(source)).reshape(-1), adjacent)
        return value, 0.0 * kernel  # sharded as it is
    # A rough scale comes first: similarities are of degree 4, and those of small kernels
    # would vanish.
    if source is kernel:
        rough = _inverse_square_of_norm(kernel)
        kernel, source, rough = _next_pass(kernel, source, rough)
    else:
        rough = inverse_scale(elementwise_sum(list(map(jnp.abs, form.planes(source)))))
    planes = scaled(source, rough)
    own = _similarity(planes, planes, form.weights)
    scale = rough * _as_row(inverse_sqrt(own), kernel)
    kernel, source, scale = _next_pass(kernel, source, scale)
    S: Any = None
    if not adjacent:
        S = form.one * _sums(form, scaled(source, scale))
        kernel, source, (scale, S) = _next_pass(kernel, source, (scale, S))
    q = _similarity(*partners_and_planes(), form.weights)
    value = 0.5 * jnp.sum(q)
    kernel, source, (scale, S, q) = _next_pass(kernel, source, (scale, S, q))
    slopes = _scale_free_slopes(q, *partners_and_planes(), form.weights)
    gradient, _ = form.gradient([factor * scale * slope for slope in slopes], kernel)
    return value, gradient


def _scale_free_in_blocks(
    form: Form, kernel: jax.Array, factor: float, *, adjacent: bool
) -> tuple[jax.Array, jax.Array]:
    """The same, in three passes over the blocks, each of which computes their planes."""
    rough = _inverse_square_of_norm(kernel)

    def with_itself(block: jax.Array) -> jax.Array:
        planes = [rough * Y for Y in form.planes(form.source(block))]
        return _similarity(planes, planes, form.weights)

    own = sum_over_blocks(with_itself, kernel, form.blocks)
    scale = rough * _as_row(inverse_sqrt(own), kernel)

    def partners_and_planes(block: jax.Array) -> tuple[Planes, Planes]:
        planes = [scale * Y for Y in form.planes(form.source(block))]
        if adjacent:
            return _neighbours(lambda *Y: Y, planes)
        S = materialize(_sums(form, planes))
        return _others(S, planes), planes

    def with_partners(block: jax.Array) -> jax.Array:
        return _similarity(*partners_and_planes(block), form.weights)

    q = sum_over_blocks(with_partners, kernel, form.blocks)

    def gradient_of(block: jax.Array) -> tuple[jax.Array, jax.Array]:
        slopes = _scale_free_slopes(q, *partners_and_planes(block), form.weights)
        return form.gradient([factor * scale * slope for slope in slopes], block)

    gradient, _ = map_blocks(gradient_of, kernel, form.blocks)
    return 0.5 * jnp.sum(q), gradient


def _pairs_of_nonzero(present: jax.Array, adjacent: bool) -> jax.Array:
    """How many pairs there are of ones, in an array `(M,)` of ones and zeros."""
    if adjacent:
        return jnp.sum(present[:-1] * present[1:])
    number = jnp.sum(present)
    return 0.5 * (number * number - number)


def _inverse_square_of_norm(kernel: jax.Array) -> jax.Array:
    """Of each output channel, of shape `(1, 1, M)`; 0 where the square vanishes."""
    return _as_row(inverse_sqrt(column_sum([jnp.square(kernel)])) ** 2, kernel)


def _next_pass(
    kernel: jax.Array, source: jax.Array, results: Any
) -> tuple[jax.Array, jax.Array, Any]:
    """Kernel, source and what passes made of it so far, for a pass that comes after."""
    if source is not kernel:
        return kernel, source, results
    kernel, results = materialize((kernel, results))
    return kernel, kernel, results


def _similarity(partners: Planes, planes: Planes, weights: Weights) -> jax.Array:
    """The similarity of each channel to its partners, of shape `(M,)`."""
    terms = zip(weights, partners, planes, strict=True)
    return column_sum([w * (P * Y) for w, P, Y in terms])


def _squares(planes: Planes, weights: Weights) -> jax.Array:
    return elementwise_sum([w * (Y * Y) for w, Y in zip(weights, planes, strict=True)])


def _sums(form: Form, planes: Planes) -> jax.Array:
    """Stack of the sum of each plane over all channels, of shape `(..., 1)`."""
    if form.store is None or planes[0].size == planes[0].shape[-1]:
        return column_sums(planes)[..., None]
    if form.summed:
        return jnp.stack(planes).sum(-1, keepdims=True)
    # Of large planes one by one: devices then add up sums, and gather none.
    return jnp.stack([x.sum(-1, keepdims=True) for x in planes])


def _others(sums: jax.Array, planes: Planes) -> Planes:
    """P of all pairs."""
    return [S - Y for S, Y in zip(sums, planes, strict=True)]


def _neighbours(planes_of: PlanesOf, source: Source) -> tuple[Planes, Planes]:
    """P of adjacent pairs, and Y, of a source that gets a zero channel at both ends."""
    padded = [jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)]) for x in source]
    padded = stored_on_cpu(materialize(padded), padded)

    def channels_from(start: int) -> Planes:
        size = source[0].shape[-1]
        return planes_of(*(x[..., start : start + size] for x in padded))

    left, planes, right = map(channels_from, range(3))
    return [a + b for a, b in zip(left, right, strict=True)], planes


def _scale_free_slopes(
    q: jax.Array, partners: Planes, planes: Planes, weights: Weights
) -> Planes:
    """`dL/dY` of the channels whose similarities to their partners are q."""
    terms = zip(weights, partners, planes, strict=True)
    return [w * (P - _as_row(q, Y) * Y) for w, P, Y in terms]


def _as_row(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x` of shape `(M,)`, to be multiplied with `like` of shape `(..., M)`."""
    return x.reshape((1,) * (like.ndim - 1) + x.shape)
