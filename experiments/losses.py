"""Losses on the conv kernels of a network: Convolutional Similarity, and its rivals.

Each can be minimised before training, or added in training. All are summed over layers.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import convsim_jax as cs
from convsim_jax import orthogonality

OfKernel = Callable[[jax.Array], jax.Array]

# How alike two pixels of a natural image are, at a distance of one.
CORRELATION = 0.9


class Options(NamedTuple):
    """What the command line says of Convolutional Similarity, and the network.

    Attributes:
        pairs: pairs of kernels that it is summed over: `"all"` or `"adjacent"`.
        preserve_norm: whether steps down it keep each output channel's norm.
        layers: what the network does with its kernels; None: plain convolutions.
    """

    pairs: cs.Pairs = "all"
    preserve_norm: bool = False
    layers: cs.ConvLayers | None = None


PLAIN = Options()


class Added(Protocol):
    """A loss on the conv kernels of a network that can be added in training."""

    def add_gradient(
        self, strength: Any, options: Options
    ) -> optax.GradientTransformation:
        """Adds `strength`, which may be traced, times the gradient to the updates."""


class Loss(Added, Protocol):
    """One that can be minimised before training too."""

    def minimize(
        self, params: chex.ArrayTree, steps: int, options: Options
    ) -> chex.ArrayTree:
        """The parameters after that many steps of Adam at 2e-3."""


class Similarity(NamedTuple):
    """Convolutional Similarity, with options as `cs.total_similarity` takes them."""

    channels: cs.Channels
    normalize: bool

    def minimize(
        self, params: chex.ArrayTree, steps: int, options: Options
    ) -> chex.ArrayTree:
        """See `Loss`."""
        return cs.minimize_similarity(
            params, steps, **self._asdict(), **options._asdict()
        )[0]

    def add_gradient(
        self, strength: Any, options: Options
    ) -> optax.GradientTransformation:
        """See `Loss`."""
        return cs.add_convolutional_similarity(
            strength, pairs=options.pairs, layers=options.layers, **self._asdict()
        )


class Penalty(NamedTuple):
    """Another loss, of which one kernel is told; summed over the conv kernels."""

    of_kernel: OfKernel

    def gradient(self, params: chex.ArrayTree, options: Options) -> chex.ArrayTree:
        """The derivative by the parameters of one network."""

        def total(params: chex.ArrayTree) -> jax.Array:
            kernels = cs.conv_kernels(params, layers=options.layers).values()
            return jnp.stack([self.of_kernel(kernel) for kernel in kernels]).sum()

        return jax.grad(total)(params)

    def minimize(
        self, params: chex.ArrayTree, steps: int, options: Options
    ) -> chex.ArrayTree:
        """See `Loss`."""
        optimizer = optax.adam(2e-3)

        def step(_: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, state = carry
            slope = self.gradient(params, options)
            updates, state = optimizer.update(slope, state, params)
            return optax.apply_updates(params, updates), state

        carry = (params, optimizer.init(params))
        return jax.lax.fori_loop(0, steps, step, carry)[0]

    def add_gradient(
        self, strength: Any, options: Options
    ) -> optax.GradientTransformation:
        """See `Loss`."""

        def add(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
            slope = self.gradient(params, options)
            return jax.tree.map(lambda u, g: u + strength * g, updates, slope)

        return optax.stateless(add)


class Decorrelation(NamedTuple):
    """Mean squared correlation of the maps of each layer: a loss that sees the input.

    Attributes:
        own: whether a layer answers for its own kernel alone, its input being given.
        every: of how many steps of training one adds it, that many times as strongly.
        part: of how many images of a batch it sees one, where that is enough.
        rows: whether it sees one row in `part` instead, the middle ones of all images.
    """

    own: bool = False
    every: int = 1
    part: int = 4
    rows: bool = False

    def add_gradient(
        self, strength: Any, options: Options
    ) -> optax.GradientTransformation:
        """Adds nothing: the maps are known in the step alone, see `of_maps`."""
        return optax.identity()

    def of_maps(self, maps: Mapping[str, jax.Array]) -> jax.Array:
        """The sum over layers."""

        def of_layer(layer: jax.Array) -> jax.Array:
            if self.rows:
                return cs.decorrelation(layer, fraction=1 / self.part)
            return cs.decorrelation(enough_of(layer, self.part))

        return jnp.stack([of_layer(layer) for layer in maps.values()]).sum()


class Decay(NamedTuple):
    """Half the squared norm of the conv kernels: weight decay of no other weights."""

    def add_gradient(
        self, strength: Any, options: Options
    ) -> optax.GradientTransformation:
        """See `Added`."""
        mask = partial(cs.conv_mask, layers=options.layers)
        return optax.add_decayed_weights(strength, mask)


def enough_of(maps: jax.Array, part: int = 4) -> jax.Array:
    """The maps of one image in `part`, or of more: eight samples a channel at least."""
    batch, *spatial, M = maps.shape
    needed = -(-8 * M // math.prod(spatial))
    # The first ones; of a batch that devices share every fourth, so that each has some.
    if jax.device_count() == 1:
        return maps[: max(batch // part, needed)]
    return maps[:: max(min(part, batch // needed), 1)]


def squared_cosine(kernel: jax.Array) -> jax.Array:
    """Mean over pairs of the squared cosine of two kernels: 0 if all are orthogonal."""
    M = kernel.shape[-1]
    squares = jnp.square(cs.kernel_cosine_similarity(kernel))
    return jnp.triu(squares, 1).sum() / max(M * (M - 1) / 2, 1)


def squared_cosine_on_images(kernel: jax.Array) -> jax.Array:
    """The same, of the maps of natural images, to which all lags contribute.

    The inner product of two maps is that of their kernels in the metric of the images'
    autocorrelation, for which `CORRELATION ** distance` is taken, the same in every
    channel and 0 between channels.
    """
    height, width, *_ = kernel.shape
    taps = np.array(list(product(range(height), range(width))), float)
    distance = np.linalg.norm(taps[:, None] - taps[None], axis=-1)
    root = np.linalg.cholesky(CORRELATION**distance).T
    seen = jnp.tensordot(
        jnp.asarray(root, kernel.dtype),
        kernel.reshape(len(taps), *kernel.shape[2:]),
        axes=1,
        precision=jax.lax.Precision.HIGHEST,
    )
    return squared_cosine(seen.reshape(kernel.shape))


PAPER = Similarity(channels="matched", normalize=False)
SCALE_FREE = Similarity(channels="cross", normalize=True)
LOSSES: dict[str, Similarity | Penalty] = {
    "paper": PAPER,
    "scale-free": SCALE_FREE,
    "matched": Similarity(channels="matched", normalize=True),
    "cosine": Penalty(squared_cosine),
    "image-metric": Penalty(squared_cosine_on_images),
    "so": Penalty(orthogonality.soft_orthogonality),
    "srip": Penalty(orthogonality.spectral_restricted_isometry),
    "ocnn": Penalty(orthogonality.convolutional_orthogonality),
}
TITLES = {
    "paper": "the paper's loss",
    "scale-free": "the scale-free cross-channel loss",
    "matched": "the scale-free loss of matched channels",
    "cosine": "squared kernel cosine similarity",
    "image-metric": "squared kernel cosine in the metric of natural images",
    "so": "soft orthogonality",
    "srip": "spectral restricted isometry (SRIP)",
    "ocnn": "convolutional orthogonality (OCNN)",
}
DECAY = Decay()
