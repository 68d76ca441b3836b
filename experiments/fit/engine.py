"""Networks of all seeds at once, on all devices: the programs that a run is made of.

Every function of `experiments.fit.step` is of one network. Here they are mapped over
the seeds, compiled once, and run with the rows of each batch divided among the devices.
"""

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data.augmentation import augmented
from experiments.data.images import Images, normalized
from experiments.fit.devices import by_row, everywhere
from experiments.fit.optimizer import Factors
from experiments.fit.step import (
    Batch,
    Network,
    Variables,
    judge,
    train_step,
    with_averages_of,
)
from experiments.losses import PLAIN, Decorrelation, Options
from experiments.measurement import (
    Kernels,
    Layers,
    layers_of,
    measure_kernels,
    measure_maps,
    order_of_use,
)
from experiments.models.convolution import compiler_options
from experiments.models.own import feature_maps

# Pixels that a random crop may move an image: the common choice for 32x32.
CROP = 4
MANY_WEIGHTS = 2**20
# Programs that depend on the optimizer.
OF_TRAINING = ("networks", "train", "close")


class Chosen(NamedTuple):
    """The best network so far of every seed, by what it scored."""

    variables: Variables  # as in `Network`
    score: jax.Array  # the higher, the better; -inf before the first epoch
    epoch: jax.Array  # counted from 1; 0 before the first
    # epoch in which the loss or a weight was no longer finite; 0 while all is well
    diverged_at: jax.Array


class Scored(NamedTuple):
    """How well images are classified, `(seeds,)`; NaN where there are none."""

    accuracy: np.ndarray  # percentage classified correctly
    # Expected calibration error: the mean difference, in points, of how sure a network is
    # and how often it is right (Guo et al., arXiv 1706.04599).
    calibration: np.ndarray


@dataclass(frozen=True)
class Engine:
    """Compiles each program once, at its first call."""

    model: Any  # the network, as `experiments.models.build` makes it
    # `optimizer(factors)`, which may be traced: one program serves all
    optimizer: Callable[[Factors], optax.GradientTransformation]
    seeds: int  # number of networks
    mean: np.ndarray  # of each channel of the images
    deviation: np.ndarray
    options: Options = PLAIN  # of similarity, as it is minimised and measured
    # a loss of the feature maps that is added in training
    of_maps: Decorrelation | None = None
    label_smoothing: float = 0.0  # probability that is spread over all classes
    augment: bool = False  # whether to crop and flip images that are on the device
    first_seed: int = 0  # of the networks' seeds, which follow each other
    _programs: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    _seconds: list[float] = field(default_factory=list, init=False, repr=False)

    @property
    def seconds_compiling(self) -> float:
        """Time that compilation took so far."""
        return sum(self._seconds)

    def adopt(self, other: "Engine") -> None:
        """Takes the compiled programs of an engine that trains otherwise, and no more."""
        others = other._programs.items()
        self._programs.update({x: y for x, y in others if x not in OF_TRAINING})

    def from_seed(self, first_seed: int) -> "Engine":
        """The same programs, for as many other seeds."""
        other = replace(self, first_seed=first_seed)
        vars(other).update(_programs=self._programs, _seconds=self._seconds)
        return other

    def start(
        self,
        initialize: Callable[[chex.ArrayTree, jax.Array], chex.ArrayTree],
        images: np.ndarray,
    ) -> Variables:
        """Random weights, initialised, with running averages of `images`.

        `initialize` takes one network's parameters, and the normalised images.
        """
        sample = np.zeros((1, *images.shape[1:]), np.float32)

        def random(seeds: jax.Array) -> Variables:
            return jax.vmap(
                lambda seed: dict(self.model.init(jax.random.key(seed), sample))
            )(seeds)

        variables = self._run("random weights", random, self._seeds)

        def initialized(params: chex.ArrayTree, images: jax.Array) -> chex.ArrayTree:
            pixels = self._normalized(images)
            return jax.vmap(lambda one: initialize(one, pixels))(params)

        params = self._run(initialize, initialized, variables["params"], images)

        def averages(variables: Variables, images: jax.Array) -> Variables:
            pixels = self._normalized(images)
            return jax.vmap(lambda one: with_averages_of(self.model, one, pixels))(
                variables
            )

        return self._run(
            ("averages", len(images)), averages, {**variables, "params": params}, images
        )

    def networks(self, variables: Variables, factors: Factors) -> tuple[Network, Chosen]:
        """Networks about to be trained."""

        def make(variables: Variables) -> tuple[Network, Chosen]:
            state = jax.vmap(self.optimizer(factors).init)(variables["params"])
            none = jnp.zeros(self.seeds, jnp.int32)
            network = Network(variables, state, jnp.zeros(self.seeds), none)
            return network, Chosen(variables, jnp.full(self.seeds, -jnp.inf), none, none)

        return self._run("networks", make, variables)

    def train(
        self,
        network: Network,
        factors: Factors,
        epoch: int,
        steps: range,
        images: Images,
        drawn: int | None = None,
    ) -> Network:
        """Takes some steps of an epoch; `network` is used up.

        If a number of images is `drawn` for each step, the images are on every device,
        and seed and epoch fix their order, whatever else differs. Otherwise they are the
        batch of the one step, divided among the devices. Epochs are counted from 1 and
        steps from 0.
        """

        def one(
            network: Network,
            key: jax.Array,
            factors: Factors,
            images: Images,
            start: jax.Array,
            stop: jax.Array,
        ) -> Network:
            if drawn is None:
                draw = jax.random.fold_in(key, start)
                return self._step(factors, network, images, draw, start)
            order = jax.random.permutation(key, len(images.labels))

            def step(number: jax.Array, network: Network) -> Network:
                rows = jax.lax.dynamic_slice_in_dim(order, number * drawn, drawn)
                rows = jax.lax.with_sharding_constraint(rows, by_row())
                pixels, labels = (x[rows] for x in images)
                draw = jax.random.fold_in(key, number)
                if self.augment:
                    pixels = augmented(draw, pixels, CROP)
                batch = Images(pixels, labels)
                return self._step(factors, network, batch, draw, number)

            return jax.lax.fori_loop(start, stop, step, network)

        def train(
            network: Network, seeds: jax.Array, epoch: jax.Array, *rest: Any
        ) -> Network:
            def of_seed(network: Network, seed: jax.Array) -> Network:
                key = jax.random.fold_in(jax.random.key(seed), epoch)
                return one(network, key, *rest)

            return over_seeds(of_seed, self._weights(network.variables))(network, seeds)

        arguments = np.int32(epoch), jax.tree.map(np.float32, factors), images
        places = np.int32(steps.start), np.int32(steps.stop)
        return self._run(
            "train", train, network, self._seeds, *arguments, *places, donate=0
        )

    def score(self, variables: Variables, batches: Iterable[Images]) -> Scored:
        """How well the images are classified.

        The batches are divided among the devices; labels of -1 do not count.
        """

        def of_batch(variables: Variables, batch: Images) -> jax.Array:
            pixels = Batch(self._normalized(batch.images), batch.labels)
            one = partial(judge, self.model, batch=pixels)
            return over_seeds(one, self._weights(variables))(variables)

        judged = [
            self._run(("score", batch.images.shape), of_batch, variables, batch)
            for batch in batches
        ]
        if not judged:
            return Scored(*np.full((2, self.seeds), np.nan))
        sums = np.sum([np.asarray(each, np.float64) for each in judged], axis=0)
        total, right, confidence = sums.swapaxes(0, 1)
        error = np.abs(right - confidence).sum(-1)
        return Scored(*(100 * x / total.sum(-1) for x in (right.sum(-1), error)))

    def close_epoch(
        self, network: Network, chosen: Chosen, epoch: int, score: np.ndarray
    ) -> tuple[Network, Chosen]:
        """Chooses the networks whose score is the best so far, and begins a new epoch."""

        def close(
            network: Network, chosen: Chosen, epoch: jax.Array, score: jax.Array
        ) -> tuple[Network, Chosen]:
            finite = jnp.isfinite(network.loss) & jax.vmap(all_finite)(network.variables)
            diverged_at = jnp.where(
                finite | (chosen.diverged_at > 0), chosen.diverged_at, epoch
            )
            better = (diverged_at == 0) & (score >= chosen.score)  # of equals, the later

            def choose(new: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

            epochs = jnp.broadcast_to(epoch, better.shape)
            variables, best, at = jax.tree.map(
                choose,
                (network.variables, score, epochs),
                (chosen.variables, chosen.score, chosen.epoch),
            )
            return network._replace(
                loss=jnp.zeros_like(network.loss), right=jnp.zeros_like(network.right)
            ), Chosen(variables, best, at, diverged_at)

        score = np.asarray(score, np.float32)
        return self._run("close", close, network, chosen, np.int32(epoch), score)

    def kernels(self, variables: Variables) -> Kernels:
        """Measures the conv kernels, `(seeds, layers)`."""
        measured = self._run(
            "kernels",
            jax.vmap(lambda params: measure_kernels(params, self.options)),
            variables["params"],
        )
        return Kernels(*(np.asarray(x, np.float64) for x in measured))

    def layers(self, variables: Variables, images: np.ndarray) -> Layers:
        """Measures the conv kernels, and the feature maps of some images."""

        def maps(variables: Variables, images: jax.Array) -> Any:
            pixels = self._normalized(images)
            return jax.lax.map(
                lambda one: measure_maps(self.model, one, pixels, self.options), variables
            )

        one = jax.tree.map(lambda leaf: leaf[0], variables)
        sample = jax.eval_shape(self._normalized, images)
        return layers_of(
            order_of_use(self.model, one, sample, self.options),
            one["params"],
            self.kernels(variables),
            self._run(("maps", images.shape), maps, variables, images),
            self.options,
        )

    def correlations(
        self, variables: Variables, images: np.ndarray
    ) -> dict[str, jax.Array]:
        """Of every two feature maps of one network's layers, before the activation."""

        def correlate(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
            found = feature_maps(self.model, variables, self._normalized(images))
            return {
                f"{layer}/correlation": jnp.corrcoef(
                    before.reshape(-1, before.shape[-1]), rowvar=False
                )
                for layer, (before, _) in found.items()
            }

        return self._run(("correlations", images.shape), correlate, variables, images)

    @property
    def _seeds(self) -> np.ndarray:
        return np.arange(self.first_seed, self.first_seed + self.seeds)

    def _weights(self, variables: Variables) -> int:
        """Of one network of all seeds."""
        leaves = jax.tree.leaves(variables["params"])
        return sum(leaf.size for leaf in leaves) // self.seeds

    def _step(
        self,
        factors: Factors,
        network: Network,
        batch: Images,
        key: jax.Array,
        number: jax.Array,
    ) -> Network:
        return train_step(
            self.model,
            self.optimizer(factors),
            self.label_smoothing,
            network,
            Batch(self._normalized(batch.images), batch.labels),
            jax.random.fold_in(key, 1),  # the key itself is that of the augmentation
            self.of_maps,
            factors.strength,
            number,
        )

    def _normalized(self, images: jax.Array) -> jax.Array:
        return normalized(images, jnp.asarray(self.mean), jnp.asarray(self.deviation))

    def _run(
        self,
        name: Hashable,
        function: Callable,
        *arguments: Any,
        donate: int | tuple[()] = (),
    ) -> Any:
        """`function(*arguments)` through the program of that name, on every device."""
        if name not in self._programs:
            clock = time.perf_counter()
            program = jax.jit(function, out_shardings=everywhere(), donate_argnums=donate)
            lowered = program.lower(*arguments)
            self._programs[name] = lowered.compile(compiler_options())
            self._seconds.append(time.perf_counter() - clock)
        return self._programs[name](*arguments)


def over_seeds(function: Callable, weights: int) -> Callable:
    """Maps a function of one network over all seeds.

    Small networks are trained at once, except on CPUs, which gain nothing by it. Those of
    over `MANY_WEIGHTS` fill any device alone, and follow each other: their convolutions
    would become grouped ones, which are slower.
    """
    if jax.default_backend() != "cpu" and weights <= MANY_WEIGHTS:
        return jax.vmap(function)
    return lambda *arguments: jax.lax.map(lambda each: function(*each), arguments)


def all_finite(tree: chex.ArrayTree) -> jax.Array:
    """Whether no number of the tree is NaN or infinite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
