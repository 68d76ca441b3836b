"""Planes: what the similarity of two output channels is an inner product of.

A list of arrays `Y` of shape `(..., M)` with one weight each, such that

    CS(i,j) = sum over planes of weight * <Y[..., i], Y[..., j]>

for every two output channels i and j. Every plane is a sum of products of two taps of one
filter, at a fixed lag: the autocorrelation at that lag. Which products belong together
follows from the convolution (`tap_pairs`). There are two forms:

- `Products` writes them out: elementwise work that XLA fuses, the fastest for small
  windows. It unrolls over pairs of taps.
- `Spectrum` takes them by a Fourier transform of the taps, one matrix product, for
  windows of any size.

The kernel comes here as its taps, of shape `(taps, C, M)`. Planes are made of a source:
the kernel itself, where they are faster computed again than read, or an array that is
computed once.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convsim_jax._blocks import map_blocks, number_of_blocks, sum_over_blocks
from convsim_jax._definition import half_lags
from convsim_jax._xla import (
    default_is_cpu,
    elementwise_sum,
    in_one_pass,
    materialize,
    materialize_on,
    row_sums,
)

Planes = Sequence[jax.Array]
Weights = Sequence[float | jax.Array]
TapPairs = Sequence[Sequence[tuple[int, int]]]

# As many as a 3x3 window has. A 5x5 one has 325: seconds of compilation.
MAX_PRODUCTS = 45

_matmul = partial(jnp.tensordot, axes=1, precision=lax.Precision.HIGHEST)


class Form(NamedTuple):
    """How the planes of a kernel are computed.

    Attributes:
      planes: Planes of a source.
      gradient: The transpose of the planes at a kernel: from the derivative by each
        plane, called its slope, to the derivative by the kernel, and the inner product
        of that and the kernel where it is asked for, or 0.
      weights: The weight of each plane; of several in one array, of each of them.
      store: The source that is made of a kernel; None where it is the kernel.
      summed: Whether planes are summed over input channels: they are small.
      blocks: Number of blocks of input channels, to be computed one by one.
      one: 1, which what takes memory is multiplied by: it comes after that is known.
    """

    planes: Callable[[jax.Array], Planes]
    gradient: Callable[..., tuple[jax.Array, jax.Array]]
    weights: Weights
    store: Callable[[jax.Array], jax.Array] | None = None
    summed: bool = False
    blocks: int = 1
    one: Any = 1

    def source(self, kernel: jax.Array) -> jax.Array:
        """What passes over a kernel read."""
        return kernel if self.store is None else materialize(self.store(kernel))


def form_of(
    kernel: jax.Array,
    *,
    cross: bool,
    strides: Sequence[int] = (),
    transposed: bool = False,
    groups: int = 1,
    one: Any = 1,
) -> Form:
    """The form for a kernel `(*window, C, M)`, one of `groups` that run together.

    Args:
      kernel: Of one group.
      cross: Whether every two input channels are compared, or each with itself.
      strides: Of the convolution, one for each axis of the window; () where all are 1.
      transposed: Whether the convolution is transposed.
      groups: Number of groups.
      one: See `Form`.
    """
    window = kernel.shape[:-2]
    # A stride over the window leaves lag zero alone, as one of the window does.
    strides = tuple(map(min, strides or (1,) * len(window), window))
    pairs = tap_pairs(window, strides, transposed)
    if sum(map(len, pairs.values())) <= MAX_PRODUCTS:
        weights = [2.0 if any(lag) else 1.0 for lag, _ in pairs]
        products = tuple(pairs.values())
        functions = partial(product_planes, products), partial(product_gradient, products)
        matched = Form(*functions, weights, one=one)
    else:
        transform = phase_transform(window, strides)
        combine = phase_products if transposed and max(strides) > 1 else phase_energy
        gradient = partial(spectral_gradient, transform, combine)
        store = partial(spectral_plane, transform, combine)
        blocks = number_of_blocks(kernel, groups)
        matched = Form(_one_plane, gradient, [1.0], store, blocks=blocks, one=one)
    if not cross:
        return matched
    store, gradient = partial(cross_source, matched), partial(cross_gradient, matched)
    if default_is_cpu():  # one array of all planes takes less time to compile
        of_planes = jnp.asarray(matched.weights, kernel.dtype)[:, None, None]
        return Form(_one_plane, gradient, [of_planes], store, summed=True, one=one)
    return Form(_planes_apart, gradient, matched.weights, store, summed=True, one=one)


def tap_pairs(
    window: Sequence[int], strides: Sequence[int], transposed: bool
) -> dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, int]]]:
    """The pairs of taps of each plane, by lag and phase; lag zero comes first.

    A strided convolution sees the lags that are multiples of its strides. A transposed
    one sees every lag, but a pixel of its input meets only the taps of one phase: pairs
    count apart by the phase `n mod stride` of their first tap n. Lags l and -l hold the
    same pairs: one of them is here, and counts twice.

    >>> tap_pairs((2,), (1,), False)
    {((0,), ()): [(0, 0), (1, 1)], ((1,), ()): [(0, 1)]}
    """
    planes: dict = {}
    taps = enumerate(np.ndindex(*window))
    for (i, n), (j, m) in itertools.combinations_with_replacement(taps, 2):
        lag = tuple(b - a for a, b in zip(n, m, strict=True))
        phase = tuple(a % s for a, s in zip(n, strides, strict=True))
        if transposed:
            planes.setdefault((lag, phase), []).append((i, j))
        elif not any(x % s for x, s in zip(lag, strides, strict=True)):
            planes.setdefault((lag, ()), []).append((i, j))
    return planes


def product_planes(pairs: TapPairs, kernel: jax.Array) -> Planes:
    """One plane `(1, C, M)` for each list of pairs: `sum K[i] K[j]` over them."""
    taps = lax.split(kernel, [1] * len(kernel))
    return [elementwise_sum([taps[i] * taps[j] for i, j in plane]) for plane in pairs]


def product_gradient(
    pairs: TapPairs,
    slopes: Planes,
    kernel: jax.Array,
    with_product: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`product_planes` transposed: tap i is the sum of `slope K[j]` over its pairs."""
    taps = lax.split(kernel, [1] * len(kernel))
    terms: list[list[jax.Array]] = [[] for _ in taps]
    for plane, slope in zip(pairs, slopes, strict=True):
        if plane[0][0] == plane[0][1]:  # lag zero: squares
            slope = 2 * slope
        for i, j in plane:
            terms[i].append(slope * taps[j])
            if i != j:
                terms[j].append(slope * taps[i])
    gradient = [elementwise_sum(term) for term in terms]
    if not with_product:
        return jnp.concatenate(in_one_pass(gradient)), jnp.zeros((), kernel.dtype)
    product = elementwise_sum([x * y for x, y in zip(taps, gradient, strict=True)])
    *gradient, product = in_one_pass([*gradient, product])
    # A TPU else reads the kernel once for each tap.
    return jnp.concatenate(materialize_on("tpu", gradient)), product.sum()


def spectral_plane(
    transform: np.ndarray, combine: Callable, kernel: jax.Array
) -> jax.Array:
    """One plane of weight 1: what `combine` makes of the spectra of the phases."""
    return combine(_spectra(transform, kernel))


def spectral_gradient(
    transform: np.ndarray,
    combine: Callable,
    slopes: Planes,
    kernel: jax.Array,
    with_product: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`spectral_plane` transposed."""
    plane, transpose = jax.vjp(combine, _spectra(transform, kernel))
    (slopes_of_spectra,) = transpose(jnp.broadcast_to(slopes[0], plane.shape))
    by_tap = jnp.asarray(transform.reshape(-1, len(kernel)).T, kernel.dtype)
    gradient = _matmul(by_tap, slopes_of_spectra.reshape(-1, *kernel.shape[1:]))
    product = jnp.sum(kernel * gradient) if with_product else jnp.zeros((), kernel.dtype)
    return gradient, product


def _spectra(transform: np.ndarray, kernel: jax.Array) -> jax.Array:
    """Real and imaginary part of each phase, of shape `(2, phases, F, C, M)`."""
    by_row = jnp.asarray(transform.reshape(-1, len(kernel)), kernel.dtype)
    rows = _matmul(by_row, kernel)
    return rows.reshape(*transform.shape[:-1], *kernel.shape[1:])


def phase_energy(spectra: jax.Array) -> jax.Array:
    """Of a convolution: the power spectra of all phases, added up."""
    rows = spectra.reshape(-1, *spectra.shape[2:])
    return elementwise_sum([row * row for row in lax.split(rows, [1] * len(rows))])[0]


def phase_products(spectra: jax.Array) -> jax.Array:
    """Of a transposed convolution: the cross-spectra of every two phases."""
    a, b = lax.split(spectra[:, :, None], [1, 1])
    c, d = lax.split(spectra[:, None], [1, 1])
    products = jnp.concatenate([a * c + b * d, a * d - b * c])
    return products.reshape(-1, *spectra.shape[3:])


def phase_transform(window: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The Fourier transform of each phase of the taps: `(2, phases, F, taps)`.

    Phase p holds the taps n with `n mod stride = p`: with a stride of 1 there is one.
    A transform has as many frequencies as a phase has lags, an odd number an axis, so
    that only frequency zero is its own conjugate: that one and one of each other pair
    are here. The weight of a pair, two, and Parseval's factor, one over the number of
    all frequencies, are in the transform.
    """
    taps = np.stack(list(np.ndindex(*window)))
    taps_of_phase = [-(-n // s) for n, s in zip(window, strides, strict=True)]
    size = 2 * np.asarray(taps_of_phase) - 1
    half = np.asarray(half_lags(taps_of_phase), float)
    angles = 2 * np.pi * (half / size) @ (taps // strides).T
    weights = np.where(np.any(half, axis=1), 2.0, 1.0) / size.prod()
    phases = np.stack(list(np.ndindex(*strides)))
    in_phase = np.all(taps[None] % strides == phases[:, None], axis=-1)
    waves = np.stack([np.cos(angles), np.sin(angles)]) * weights[:, None] ** 0.25
    return waves[:, None] * in_phase[None, :, None]


def cross_source(matched: Form, kernel: jax.Array) -> jax.Array:
    """Matched planes summed over input channels, of shape `(planes, rows, M)`."""

    def of_block(kernel: jax.Array) -> jax.Array:
        def planes(part: jax.Array) -> Planes:
            return matched.planes(part if matched.store is None else matched.store(part))

        return row_sums(planes, kernel)

    return sum_over_blocks(of_block, kernel, matched.blocks)


def cross_gradient(
    matched: Form, slopes: Planes, kernel: jax.Array, with_product: bool = False
) -> tuple[jax.Array, jax.Array]:
    """`cross_source` transposed: every input channel has the slopes of the sum."""
    if len(slopes) < len(matched.weights):  # all in one array
        slopes = list(materialize_on("cpu", slopes[0]))
    slopes = [slope.reshape(-1, 1, slope.shape[-1]) for slope in slopes]
    gradient = partial(matched.gradient, slopes, with_product=with_product)
    return map_blocks(gradient, kernel, matched.blocks)


def _one_plane(source: jax.Array) -> Planes:
    return [source]


def _planes_apart(source: jax.Array) -> Planes:
    return lax.split(source, [1] * len(source))
