"""Feature maps: how alike they are, how many there are in effect, and a loss on that."""

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._checks import (
    accumulation_dtype,
    check_array,
    check_fraction,
    check_groups,
)
from convsim_jax._norms import inverse_sqrt
from convsim_jax._xla import in_auto_axes, replicated


def feature_map_similarity(
    feature_maps: chex.Array, *, center: bool = False
) -> jax.Array:
    r"""Mean absolute cosine between the channels of a layer's output.

    .. math:: \frac{1}{B} \sum_b \frac{2}{M(M-1)} \sum_{i<j}
              \frac{|\langle F_{b,i}, F_{b,j} \rangle|}{\|F_{b,i}\| \|F_{b,j}\|}

    Args:
      feature_maps: Array of shape `(batch, *spatial, M)`.
      center: Subtract each map's mean first.

    Returns:
      Scalar in [0, 1] and the maps' dtype; 0 where M = 1. A pair with a zero map counts
      as 0.

    Raises:
      ValueError: The rank is less than 3, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> maps = jnp.array([[1.0, 3.0], [0.0, 4.0]]).reshape(1, 2, 1, 2)
      >>> print(feature_map_similarity(maps))
      0.6

    Source: Belmekki et al., arXiv 2411.03226, section 4.
    """
    maps = check_maps(feature_maps, "feature_maps")
    cosine = partial(_mean_absolute_cosine, center=center)
    return in_auto_axes(cosine, maps, replicated).astype(maps.dtype)


def decorrelation(
    maps: chex.Array,
    *,
    feature_group_count: int = 1,
    axis_name: Hashable | None = None,
    fraction: float = 1.0,
) -> jax.Array:
    r"""Mean squared correlation of two channels: the loss that sees a layer's input.

    .. math:: \frac{1}{M(M-1)} \sum_{i \ne j} r_{ij}^2, \qquad
              r_{ij} = \frac{\mathrm{cov}(F_i, F_j)}
                            {\sqrt{\mathrm{var}(F_i)\,\mathrm{var}(F_j)}}

    Mean, variance and covariance are over images and positions together, of which a part
    estimates the value at less cost. Neither smaller weights nor biases lower it.

    Args:
      maps: Array of shape `(batch, *spatial, M)`.
      feature_group_count: Number of groups of channels; pairs count inside a group only.
      axis_name: Inside `shard_map`, `pmap` or `vmap`, the axis or axes over which the
        batch is spread: the value is then that of the whole batch.
      fraction: Of the first spatial axis, in (0, 1]: its middle rows alone are seen, of
        all images. More of them where these would be fewer than 8 samples a channel of a
        group. A TPU is much faster at rows than at as many images.

    Returns:
      Scalar in [0, 1] and the maps' dtype; 0 where a group has one channel. A pair with a
      constant map counts as 0, and the gradient with respect to that map is 0.

    Raises:
      ValueError: The rank is less than 3, the dtype is not floating,
        `feature_group_count` does not divide M, or `fraction` is not in (0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> maps = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
      >>> print(f"{decorrelation(maps[None]):.3f}")
      0.091

    Source: DeCov, Cogswell et al., arXiv 1511.06068, which has covariances of dense
    layers; here free of scale, and of conv maps.
    """
    maps = check_maps(maps, "maps")
    groups = check_groups(maps, feature_group_count, "maps")
    fraction = check_fraction(fraction, "fraction")
    return _decorrelation(maps, groups, axis_name, fraction).astype(maps.dtype)


def effective_maps(maps: chex.Array, *, axis_name: Hashable | None = None) -> jax.Array:
    r"""How many uncorrelated maps are as varied as these: their participation ratio.

    .. math:: \frac{(\sum_k e_k)^2}{\sum_k e_k^2} = \frac{M^2}{\sum_{i,j} r_{ij}^2}
              = \frac{M}{1 + (M - 1)\, d}

    with `e` the eigenvalues of the channels' correlation matrix `r` over images and
    positions, and `d` the maps' `decorrelation`. Constant maps are left out.

    Args:
      maps: Array of shape `(batch, *spatial, M)`. Of `n` images and positions no more
        than `n - 1` maps are seen.
      axis_name: Axis or axes over which the batch is spread; see `decorrelation`.

    Returns:
      Scalar from 1 to M, in the maps' dtype; 0 where all maps are constant.

    Raises:
      ValueError: The rank is less than 3, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([1.0, -1, 1, -1]), jnp.array([1.0, 1, -1, -1])
      >>> print(f"{effective_maps(jnp.stack([a, b, -3 * b], -1)[None]):.2f}")
      1.80
    """
    maps = check_maps(maps, "maps")
    return _effective_maps(maps, axis_name).astype(maps.dtype)


def check_maps(maps: Any, name: str) -> jax.Array:
    """Returns `maps` as a JAX array, or says why they are no feature maps."""
    maps = check_array(maps, name)
    if maps.ndim < 3 or 0 in maps.shape:
        raise ValueError(
            f"{name} has shape {maps.shape}; expected (batch, *spatial, M), none of it 0"
        )
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        raise ValueError(
            f"{name} has dtype {maps.dtype}; expected a floating-point dtype"
        )
    return maps


@partial(jax.jit, static_argnames="center")
def _mean_absolute_cosine(maps: jax.Array, center: bool) -> jax.Array:
    batch, *_, M = maps.shape
    pixels = maps.astype(accumulation_dtype(maps.dtype)).reshape(batch, -1, M)
    if M == 1:
        return jnp.zeros((), pixels.dtype)
    energy = jnp.sum(pixels * pixels, 1, keepdims=True)
    if center:
        for _ in range(2):  # the second time takes what rounding left of the mean
            pixels = pixels - pixels.mean(1, keepdims=True)
        rounding = (8 * jnp.finfo(pixels.dtype).eps) ** 2 * energy
        energy = jnp.sum(pixels * pixels, 1, keepdims=True)
        energy = jnp.where(energy > rounding, energy, 0.0)  # of a constant map
    pixels = pixels * inverse_sqrt(energy)
    cosines = jnp.einsum("bpi,bpj->bij", pixels, pixels, precision=lax.Precision.HIGHEST)
    return jnp.abs(_without_diagonal(cosines)).sum() / (batch * M * (M - 1))


@partial(jax.jit, static_argnums=(1, 2, 3))
def _decorrelation(
    maps: jax.Array, groups: int, axis_name: Hashable | None, fraction: float
) -> jax.Array:
    size = maps.shape[-1] // groups

    def of_rows(maps: jax.Array, axis_name: Hashable | None) -> Any:
        return _squares(_middle_rows(maps, fraction, axis_name), axis_name)

    squares, _ = _of_maps(of_rows, maps, groups, axis_name)
    return squares.sum() / (groups * max(size * (size - 1), 1))


def _middle_rows(
    maps: jax.Array, fraction: float, axis_name: Hashable | None
) -> jax.Array:
    """A fraction of the rows, or as many as make 8 samples a channel.

    Not of the images: a TPU keeps those of one pixel together, and would copy a part.
    """
    batch, height, *others, M = maps.shape
    devices = 1 if axis_name is None else lax.psum(1, axis_name)
    needed = math.ceil(8 * M / math.prod((devices, batch, *others)))
    count = min(height, max(math.ceil(round(fraction * height, 9)), needed))
    return lax.slice_in_dim(maps, (height - count) // 2, (height + count) // 2, axis=1)


def _on_diagonal(matrices: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=bool), matrices.shape)


def _without_diagonal(matrices: jax.Array) -> jax.Array:
    # Not times 0: on CPUs XLA would compute the products anew in each sum of the result.
    return jnp.where(_on_diagonal(matrices), jnp.zeros_like(matrices), matrices)


@partial(jax.jit, static_argnums=1)
def _effective_maps(maps: jax.Array, axis_name: Hashable | None) -> jax.Array:
    (square,), (varied,) = _of_maps(_squares, maps, 1, axis_name)
    return jnp.square(varied) / jnp.where(varied > 0, varied + square, 1.0)


def correlations(
    maps: jax.Array, groups: int = 1, axis_name: Hashable | None = None
) -> jax.Array:
    """Correlation of the channels of each group, `(groups, M / groups, M / groups)`."""
    return _of_maps(_correlations, maps, groups, axis_name)


def _of_maps(
    function: Callable, maps: jax.Array, groups: int, axis_name: Hashable | None
) -> Any:
    """Of the maps of each group; the same on every device."""
    of_group = partial(function, axis_name=axis_name)

    def of_maps(maps: jax.Array) -> Any:
        if groups == 1:  # to a TPU an axis of 1 is not nothing
            return jax.tree.map(lambda x: x[None], of_group(maps))
        split = maps.reshape(*maps.shape[:-1], groups, maps.shape[-1] // groups)
        return jax.vmap(of_group, in_axes=-2)(split)

    return in_auto_axes(of_maps, maps, replicated)


def _moments(
    maps: jax.Array, axis_name: Hashable | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Correlations of maps `(batch, *spatial, m)`, sound if their sum is finite.

    Beside them the centered maps, scaled to a range of 1, by how much they are scaled,
    and what scales them further to unit norm; 0 for maps that are constant but for
    rounding. Centered maps are in the dtype of the maps, all else in that of sums.

    On accelerators bytes are what it costs: the maps are read once for all that is known
    of each channel, and once to be centered. A GPU finds mean and both extremes in one
    kernel only if the extremes are of half precision. A TPU would copy maps to flatten
    them.
    """
    dtype, axes = accumulation_dtype(maps.dtype), tuple(range(maps.ndim - 1))
    still = lax.stop_gradient(maps)  # correlations do not depend on the scale
    mean, high, low = maps.mean(axes, dtype), still.max(axes), still.min(axes)
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        high, low = lax.pmax(high, axis_name), lax.pmin(low, axis_name)
    high, low = high.astype(dtype), low.astype(dtype)
    rounding = 8 * jnp.finfo(dtype).eps * jnp.maximum(jnp.abs(high), jnp.abs(low))
    constant = high - low <= rounding
    scale = jnp.where(constant, 0.0, 1.0 / jnp.where(constant, 1.0, high - low))
    shift, factor = (jnp.expand_dims(x, axes) for x in (mean, scale))
    centered = ((maps.astype(dtype) - shift) * factor).astype(maps.dtype)
    covariance = _products(centered, centered, axis_name)
    norm = inverse_sqrt(jnp.where(_on_diagonal(covariance), covariance, 0.0).sum(-1))
    return covariance * norm[:, None] * norm[None], centered, scale, norm


def _correlations(maps: jax.Array, axis_name: Hashable | None) -> jax.Array:
    return _moments(maps, axis_name)[0]


def _products(a: jax.Array, b: jax.Array, axis_name: Hashable | None) -> jax.Array:
    """Of every two channels, over images and positions of all devices."""
    dtype = accumulation_dtype(a.dtype)
    products = jnp.einsum("...i,...j->ij", a, b, preferred_element_type=dtype)
    return products if axis_name is None else lax.psum(products, axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _squares(maps: jax.Array, axis_name: Hashable | None) -> tuple[jax.Array, jax.Array]:
    """The sum of all squared correlations of two channels; how many are not constant."""
    correlation, _, _, norm = _moments(maps, axis_name)
    varied = jnp.sum(norm > 0, dtype=norm.dtype)
    return jnp.square(_without_diagonal(correlation)).sum(), varied


@_squares.defjvp
def _derivative(
    axis_name: Hashable | None, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[Any, Any]:
    """With one product of the maps' size, where that of a product has two.

    Of `r_ij = <z_i, z_j>`, `z = x / |x|` and `x` the centered maps, the derivative is
    `d_ij + d_ji - r_ij (d_ii + d_jj)`, where `d_ij = <z_i, dx_j> / |x_j|`. So that of
    the sum of their squares is four times the sum of `r_ij d_ij`, `i != j`, less that of
    `d_ii` times the squares in row `i`.
    """
    correlation, centered, scale, norm = _moments(*primals, axis_name)
    others = _without_diagonal(correlation)
    square = jnp.square(others).sum(-1)
    weights = 4 * (others - jnp.diag(square)) * norm[:, None] * (norm * scale)[None]
    change = _products(centered, tangents[0], axis_name)
    varied = jnp.sum(norm > 0, dtype=norm.dtype)
    return (square.sum(), varied), (jnp.sum(weights * change), jnp.zeros_like(varied))
