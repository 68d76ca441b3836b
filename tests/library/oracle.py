"""Independent oracles: NumPy and SciPy, float64, plain loops, nothing of JAX.

Kernels have shape ``(*window, C, M)``. Speed is no aim here.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy import signal

Array = np.ndarray


def float64(x) -> Array:
    return np.asarray(x).astype(np.float64)


def cross_correlate(a, b) -> Array:
    """``(a * b)[l] = sum_n a[n] b[n+l]`` for every lag of two spatial filters."""
    return signal.correlate(float64(b), float64(a), mode="full", method="direct")


def pairs_of(outputs: int, pairs: str, groups: int = 1) -> Iterator[tuple[int, int]]:
    """Pairs ``i < j`` of output channels that read the same input channels."""
    per_group = outputs // groups
    for i in range(outputs):
        for j in range(i + 1, outputs):
            if i // per_group == j // per_group and (pairs == "all" or j == i + 1):
                yield i, j


def phases(x, strides: tuple[int, ...]) -> list[Array]:
    """``x[s q + p]`` for every phase p of the leading axes, zero padded to one shape."""
    missing = [-n % s for n, s in zip(x.shape, strides, strict=False)]
    padded = np.pad(x, [(0, n) for n in missing] + [(0, 0)] * (x.ndim - len(strides)))
    return [
        padded[tuple(slice(p, None, s) for p, s in zip(phase, strides, strict=True))]
        for phase in np.ndindex(*strides)
    ]


def similarity(kernel, i: int, j: int, **geometry) -> float:
    """``CS(i, j)``; of two kernels that were compared before, what it was then.

    A difference quotient changes one kernel: of the others it asks the same again.
    """
    two = kernel[..., [i, j]]
    return _similarity(two.tobytes(), two.shape, **geometry)


@cache
def _similarity(
    two: bytes, shape, channels="matched", strides=None, transposed=False
) -> float:
    """By its definition, one pair of spatial filters at a time.

    A strided convolution is one of all phases of the input, which are compared with one
    another as those of ``channels="cross"``; a transposed one adds up its phases.
    """
    kernel = np.frombuffer(two).reshape(shape)
    total, inputs = 0.0, shape[-2]
    parts = phases(kernel, np.broadcast_to(strides or 1, kernel.ndim - 2))
    for c in range(inputs):
        for d in range(inputs) if channels == "cross" else [c]:
            if transposed:
                pairs = [[(part, part) for part in parts]]
            else:
                pairs = [[pair] for pair in itertools.product(parts, parts)]
            for added in pairs:
                r = sum(cross_correlate(a[..., c, 0], b[..., d, 1]) for a, b in added)
                total += float(np.sum(r * r))
    return total


def scale_free(kernel, i: int, j: int, **geometry) -> float:
    """``CS(i,j) / sqrt(CS(i,i) CS(j,j))``; 0 where a kernel is zero."""
    own = [similarity(kernel, m, m, **geometry) for m in (i, j)]
    if min(own) == 0:
        return 0.0
    return similarity(kernel, i, j, **geometry) / np.sqrt(own[0]) / np.sqrt(own[1])


def similarity_matrix(
    kernel, *, normalize=False, feature_group_count=1, **geometry
) -> Array:
    kernel = float64(kernel)
    outputs = kernel.shape[-1]
    entry = scale_free if normalize else similarity
    matrix = np.zeros((outputs, outputs))
    for i in range(outputs):
        matrix[i, i] = entry(kernel, i, i, **geometry)
    for i, j in pairs_of(outputs, "all", feature_group_count):
        matrix[i, j] = matrix[j, i] = entry(kernel, i, j, **geometry)
    return matrix


def convolutional_similarity(
    kernel, *, pairs="all", normalize=False, feature_group_count=1, **geometry
) -> float:
    kernel = float64(kernel)
    entry = scale_free if normalize else similarity
    terms = [
        entry(kernel, i, j, **geometry)
        for i, j in pairs_of(kernel.shape[-1], pairs, feature_group_count)
    ]
    if not terms:
        return 0.0
    return float(np.mean(terms) if normalize else np.sum(terms))


def adjacent_loss_of_paper(kernel) -> float:
    """The official loss of one 2-D layer: every index written out.

    Each output channel's filters slide over the next output channel's, zero
    padded by the window's size less one, input channel by input channel.
    """
    kernel = float64(kernel)
    height, width, inputs, outputs = kernel.shape
    loss = 0.0
    for i in range(outputs - 1):
        for c in range(inputs):
            for p in range(1 - height, height):
                for q in range(1 - width, width):
                    product = 0.0
                    for y in range(height):
                        for x in range(width):
                            if 0 <= y + p < height and 0 <= x + q < width:
                                product += (
                                    kernel[y, x, c, i] * kernel[y + p, x + q, c, i + 1]
                                )
                    loss += product**2
    return loss


def cosine(a, b) -> float:
    a, b = float64(a).ravel(), float64(b).ravel()
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def kernel_cosine_similarity(kernel) -> Array:
    outputs = kernel.shape[-1]
    return np.array(
        [
            [cosine(kernel[..., i], kernel[..., j]) for j in range(outputs)]
            for i in range(outputs)
        ]
    )


# Penalties that it is compared with.


def gram_error(kernel) -> Array:
    """``W^T W - I``, the flattened kernels the columns of W."""
    W = float64(kernel).reshape(-1, kernel.shape[-1])
    return W.T @ W - np.eye(W.shape[1])


def soft_orthogonality(kernel) -> float:
    return np.linalg.norm(gram_error(kernel)) ** 2


def double_soft_orthogonality(kernel) -> float:
    W = float64(kernel).reshape(-1, kernel.shape[-1])
    return soft_orthogonality(kernel) + np.linalg.norm(W @ W.T - np.eye(len(W))) ** 2


def mutual_coherence(kernel) -> float:
    return np.abs(gram_error(kernel)).max()


def spectral_restricted_isometry(kernel, start, iterations=2) -> float:
    error, v = gram_error(kernel), float64(start)
    for _ in range(iterations - 1):
        v = error @ v
    return np.linalg.norm(error @ v) / np.linalg.norm(v)


def convolutional_orthogonality(kernel, stride=1) -> float:
    """As the paper writes it: pad by P, slide by S, compare with the identity."""
    kernel = float64(kernel)
    *window, _, M = kernel.shape
    strides = np.broadcast_to(stride, len(window))
    padding = [(k - 1) // s * s for k, s in zip(window, strides, strict=True)]
    padded = np.pad(kernel, [(p, p) for p in padding] + [(0, 0), (0, 0)])
    steps = [2 * p // s + 1 for p, s in zip(padding, strides, strict=True)]
    centre = tuple(p // s for p, s in zip(padding, strides, strict=True))
    loss = 0.0
    for position in np.ndindex(*steps):
        corner = [t * s for t, s in zip(position, strides, strict=True)]
        view = tuple(slice(c, c + k) for c, k in zip(corner, window, strict=True))
        products = padded[view].reshape(-1, M).T @ kernel.reshape(-1, M)
        loss += np.linalg.norm(products - np.eye(M) * (position == centre)) ** 2
    return loss


# Feature maps.


def feature_map_similarity(maps, *, center=False) -> float:
    """Mean absolute cosine over pairs of channels, then over images."""
    per_image = []
    for image in float64(maps):
        channels = [image[..., m] for m in range(image.shape[-1])]
        if center:
            channels = [f - f.mean() for f in channels]
        cosines = [
            abs(cosine(channels[i], channels[j]))
            for i, j in pairs_of(len(channels), "all")
        ]
        per_image.append(np.mean(cosines) if cosines else 0.0)
    return float(np.mean(per_image))


def total_similarity(kernels, **options) -> float:
    return sum(convolutional_similarity(kernel, **options) for kernel in kernels)


def gradient(function: Callable[[Array], float], x, step: float = 1e-3) -> Array:
    """Central differences with five points: exact for polynomials of degree 4.

    Steps are relative to the size of each output channel (the last axis).
    """
    x = float64(x)
    size = np.sqrt(np.mean(x**2, axis=tuple(range(x.ndim - 1))))
    steps = np.broadcast_to(step * np.where(size > 0, size, 1.0), x.shape)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        h = np.zeros_like(x)
        h[index] = steps[index]
        result[index] = (
            8 * (function(x + h) - function(x - h))
            - (function(x + 2 * h) - function(x - 2 * h))
        ) / (12 * steps[index])
    return result


def slope(function: Callable[[Array], float], x, direction, step: float = 1e-3):
    """Derivative along a direction, by central differences with five points."""
    near, far = (
        function(x + t * direction) - function(x - t * direction)
        for t in (step, 2 * step)
    )
    return (8 * near - far) / (12 * step)


def relative_error(result, expected) -> float:
    result, expected = float64(result), float64(expected)
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
