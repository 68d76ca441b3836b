"""Similarity of feature maps: what the loss on kernels is there to lower."""

from functools import partial

import chex
import jax
import jax.numpy as jnp

from convsim_jax._correlation import accumulation_dtype
from convsim_jax._norms import inverse_sqrt


def feature_map_similarity(
    feature_maps: chex.Array, *, center: bool = False
) -> jax.Array:
    r"""Mean absolute cosine between the channels of a layer's output.

    .. math:: \frac{1}{B} \sum_b \frac{2}{M(M-1)} \sum_{i<j}
              \frac{|\langle F_{b,i}, F_{b,j} \rangle|}{\|F_{b,i}\| \|F_{b,j}\|}

    Args:
      feature_maps: Array of shape `(batch, *spatial, M)`, with any number of spatial
        axes.
      center: Subtract each map's mean first, so that the constant part, which maps of
        natural images share, does not count.

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
    maps = jnp.asarray(feature_maps)
    if maps.ndim < 3:
        raise ValueError(
            f"feature_maps has shape {maps.shape}; expected (batch, *spatial, M)"
        )
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        raise ValueError(
            f"feature_maps has dtype {maps.dtype}; expected a floating-point dtype"
        )
    return _mean_absolute_cosine(maps, center).astype(maps.dtype)


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
    cosines = jnp.einsum(
        "bpi,bpj->bij", pixels, pixels, precision=jax.lax.Precision.HIGHEST
    )
    of_pairs = jnp.abs(cosines) * (1.0 - jnp.eye(M, dtype=pixels.dtype))[None]
    return of_pairs.sum() / (batch * M * (M - 1))
