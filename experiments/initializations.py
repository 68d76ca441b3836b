"""What is done to the conv kernels of a network before training.

Every initialization is a function `(params, amount, options)` of one network's parameters
to those that training starts from, with an amount by default, and amounts that a study
tries. One that looks at training images takes these too.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

import convsim_jax as cs
from experiments.losses import PAPER, Loss, Options, Similarity

STEPS = (10.0, 30.0, 100.0, 300.0)
FACTORS = (0.25, 0.35, 0.5, 0.7)
FRACTIONS = (0.25, 0.5, 0.75, 1.0)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)

# The options of the command line that Convolutional Similarity takes.
OF_SIMILARITY = ("pairs", "preserve_norm")

Function = Callable[..., chex.ArrayTree]


class Initialization(NamedTuple):
    """What is done before training.

    Attributes:
        function: see above.
        amount: by default.
        tried: amounts, from the least to the most.
        unit: what the amount counts: the command line's `--steps` are steps alone.
        takes: the options that matter.
        looks: whether it takes images, `(n, height, width, channels)`, normalised.
    """

    function: Function
    amount: float = 100.0
    tried: tuple[float, ...] = STEPS
    unit: Literal["steps", "factor", "fraction", "ridge"] = "steps"
    takes: tuple[str, ...] = ()
    looks: bool = False

    def __call__(
        self, params: chex.ArrayTree, options: Options, images: Any = None
    ) -> chex.ArrayTree:
        """The parameters of one network that training starts from."""
        more = (images,) if self.looks else ()
        return self.function(params, self.amount, options, *more)


def minimizing(loss: Loss, **fixed: Any) -> Initialization:
    """Steps down a loss, with some options fixed."""

    def minimize(
        params: chex.ArrayTree, amount: float, options: Options
    ) -> chex.ArrayTree:
        return loss.minimize(params, int(amount), options._replace(**fixed))

    names = OF_SIMILARITY if isinstance(loss, Similarity) else ()
    return Initialization(minimize, takes=tuple(n for n in names if n not in fixed))


def then_norms_of_paper(first: Initialization) -> Initialization:
    """Another initialization, then each kernel scaled as the paper's loss scales it.

    The amount is the number of steps down the paper's loss that the norms are taken from.
    """

    def function(
        params: chex.ArrayTree, amount: float, options: Options
    ) -> chex.ArrayTree:
        reached = PAPER.minimize(params, int(amount), options)
        return with_norms_of(first(params, options), reached, options)

    return Initialization(function, takes=OF_SIMILARITY)


def then_factor(first: Initialization) -> Initialization:
    """Another initialization, then all conv kernels times a factor, the amount."""

    def function(
        params: chex.ArrayTree, amount: float, options: Options
    ) -> chex.ArrayTree:
        started = first(params, options)
        return map_kernels(lambda kernel: amount * kernel, options, started)

    return Initialization(function, 0.5, FACTORS, "factor", first.takes)


def without_mean(
    params: chex.ArrayTree, amount: float, options: Options
) -> chex.ArrayTree:
    """Kernels less a fraction of each spatial filter's mean, with the norms they had."""

    def less(kernel: jax.Array) -> jax.Array:
        if kernel.shape[:2] == (1, 1):
            return kernel
        return kernel - amount * kernel.mean((0, 1), keepdims=True)

    return with_norms_of(map_kernels(less, options, params), params, options)


def whitened(
    params: chex.ArrayTree, amount: float, options: Options, images: jax.Array
) -> chex.ArrayTree:
    r"""Kernels of the first layer, in the order of the tree, whose maps do not repeat.

    With the covariance of the images' patches, :math:`S = E \Lambda E'`, they are columns
    of :math:`E (\Lambda + \epsilon)^{-1/2}`, of the largest variance first: maps are
    uncorrelated, of a variance of nearly 1. Kernels beyond the number of taps stay.
    Coates et al., AISTATS 2011; so begins the network of arXiv 2404.00498.

    The amount is :math:`\epsilon` in units of the mean variance.
    """
    seen: list[jax.Array] = []

    def replace(kernel: jax.Array) -> jax.Array:
        height, width, C, M = kernel.shape
        if seen or images.shape[-1] != C:
            return kernel
        seen.append(kernel)
        down, across = images.shape[1] - height + 1, images.shape[2] - width + 1

        def moments(image: jax.Array) -> tuple[jax.Array, jax.Array]:
            places = np.ndindex(height, width)
            taps = [image[i : i + down, j : j + across] for i, j in places]
            patches = jnp.stack(taps, -2).reshape(-1, height * width * C)
            return patches.mean(0), patches.T @ patches / len(patches)

        mean, square = (x.mean(0) for x in jax.lax.map(moments, images))
        variances, vectors = jnp.linalg.eigh(square - jnp.outer(mean, mean))
        added = variances + amount * variances.mean()
        scale = jnp.where(added > 0, jax.lax.rsqrt(jnp.where(added > 0, added, 1)), 0)
        white = (vectors * scale[None])[:, ::-1][:, :M].reshape(height, width, C, -1)
        return jnp.concatenate([white, kernel[..., white.shape[-1] :]], -1)

    result = map_kernels(replace, options, params)
    if not seen:
        raise ValueError("--method is whitened; expected a conv layer of the images")
    return result


def with_norms_of(
    params: chex.ArrayTree, reference: chex.ArrayTree, options: Options
) -> chex.ArrayTree:
    """Each conv kernel of a network scaled to the norm of the one in `reference`."""

    def scale(kernel: jax.Array, other: jax.Array) -> jax.Array:
        norm = jnp.linalg.vector_norm
        return kernel * (norm(other) / norm(kernel))

    return map_kernels(scale, options, params, reference)


def map_kernels(
    function: Callable[..., jax.Array],
    options: Options,
    params: chex.ArrayTree,
    *others: chex.ArrayTree,
) -> chex.ArrayTree:
    """Maps the conv kernels of a network, and leaves its other parameters alone."""
    return jax.tree.map(
        lambda is_kernel, *leaves: function(*leaves) if is_kernel else leaves[0],
        cs.conv_mask(params, layers=options.layers),
        params,
        *others,
    )


UNCHANGED = Initialization(lambda params, amount, options: params, 0.0, (0.0,))
ZERO_MEAN = Initialization(without_mean, 1.0, FRACTIONS, "fraction")
WHITENED = Initialization(whitened, 1e-3, RIDGES, "ridge", looks=True)
