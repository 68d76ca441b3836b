"""Matrices of the similarity of every two output channels of one kernel."""

from collections.abc import Sequence
from functools import partial

import chex
import jax
import jax.numpy as jnp
from jax import lax

from convsim_jax._checks import accumulation_dtype, check_kernel
from convsim_jax._norms import inverse_scale, inverse_sqrt
from convsim_jax._planes import form_of
from convsim_jax._similarity import Channels, Geometry, Objective, check_geometry
from convsim_jax._xla import in_auto_axes, replicated


def similarity_matrix(
    kernel: chex.Array,
    *,
    channels: Channels = "matched",
    normalize: bool = False,
    feature_group_count: int = 1,
    strides: int | Sequence[int] = 1,
    transposed: bool = False,
) -> jax.Array:
    r"""Convolutional Similarity of every two output channels of one conv kernel.

    .. math:: S_{ij} = CS(i,j) = \sum_c \sum_l (K[i,c] \star K[j,c])[l]^2

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.
      channels: `"matched"` or `"cross"`, as in `convolutional_similarity`.
      normalize: Return `CS(i,j) / sqrt(CS(i,i) CS(j,j))`, the cosine of two
        autocorrelations: in [0, 1], and 1 where the power spectra are proportional.
      feature_group_count: Number of groups of a grouped convolution.
      strides: Of the convolution, as in `convolutional_similarity`.
      transposed: Whether it is transposed, as in `convolutional_similarity`.

    Returns:
      Symmetric array of shape `(M, M)` and the kernel's dtype; 0 between channels of
      different groups, and in the rows and columns of zero kernels.

    Raises:
      ValueError: As `convolutional_similarity`.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[1.0, 2.0], [1.0, -2.0]]).reshape(2, 1, 2)
      >>> similarity_matrix(kernel)
      Array([[ 6.,  8.],
             [ 8., 96.]], dtype=float32)

    Source: Belmekki et al., arXiv 2411.03226, section 3, by Parseval's identity.
    """
    kernel = check_kernel(kernel)
    objective = Objective(channels=channels, normalize=normalize)
    geometry = check_geometry(kernel, feature_group_count, strides, transposed)
    return _matrix(kernel, objective, geometry).astype(kernel.dtype)


@partial(jax.jit, static_argnames=("objective", "geometry"))
def _matrix(kernel: jax.Array, objective: Objective, geometry: Geometry) -> jax.Array:
    groups, strides, transposed = geometry

    def matrix(kernel: jax.Array) -> jax.Array:
        if objective.normalize:
            kernel = kernel * inverse_scale(kernel)
        cross = objective.channels == "cross"
        form = form_of(kernel, cross=cross, strides=strides, transposed=transposed)
        C, M = kernel.shape[-2:]
        planes = form.planes(form.source(kernel.reshape(-1, C, M)))
        weighted = [w**0.5 * Y for w, Y in zip(form.weights, planes, strict=True)]
        columns = jnp.concatenate([Y.reshape(-1, M) for Y in weighted])
        return _gram_matrix(columns, objective.normalize, groups)

    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    return in_auto_axes(matrix, kernel, replicated)


def _gram_matrix(columns: jax.Array, normalize: bool, groups: int) -> jax.Array:
    """Inner products, or cosines, of columns `(features, M)` inside each group."""
    M = columns.shape[-1]
    if normalize:
        columns = columns * inverse_sqrt(jnp.sum(columns * columns, 0))[None]
    gram = jnp.matmul(columns.T, columns, precision=lax.Precision.HIGHEST)
    group = jnp.arange(M) // (M // groups)
    return jnp.where(group[:, None] == group[None], gram, 0.0)


def kernel_cosine_similarity(kernel: chex.Array) -> jax.Array:
    r"""Cosine of every two flattened kernels: what kernel orthogonality minimises.

    .. math:: \cos_{ij} = \frac{\langle K_i, K_j \rangle}{\|K_i\| \|K_j\|}

    Args:
      kernel: Conv kernel of shape `(*window, C, M)`.

    Returns:
      Symmetric array of shape `(M, M)` and the kernel's dtype, in [-1, 1]; 0 in the
      rows and columns of zero kernels.

    Raises:
      ValueError: The rank is not 3, 4 or 5, or the dtype is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = jnp.array([[3.0, 0.0], [4.0, 2.0]]).reshape(2, 1, 2)
      >>> print(kernel_cosine_similarity(kernel)[0, 1])
      0.8

    Source: Belmekki et al., arXiv 2411.03226, section 4.1.
    """
    kernel = check_kernel(kernel)
    return _cosine(kernel).astype(kernel.dtype)


@jax.jit
def _cosine(kernel: jax.Array) -> jax.Array:
    def cosine(kernel: jax.Array) -> jax.Array:
        kernel = kernel * inverse_scale(kernel)
        columns = kernel.reshape(-1, kernel.shape[-1])
        return _gram_matrix(columns, normalize=True, groups=1)

    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    return in_auto_axes(cosine, kernel, replicated)
