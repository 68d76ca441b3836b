"""Training of all seeds of a method at once: one compiled program an epoch."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import convsim_jax as cs
from experiments.classify.data import Images
from experiments.measurement import EVALUATED_AT_ONCE, accuracy, batches_of
from experiments.methods import Method, Objective, Pairs
from experiments.models.cnn import CNN


class State(NamedTuple):
    """One network in training; with a leading axis on every array, one network a seed.

    Attributes:
        variables: parameters, and the running averages of batch normalisation if any.
        optimizer: state of the optimizer.
        diverged_at: epoch, counted from 1, in which the loss or the network stopped being
            finite; 0 while all is well. The network stays as it was before that epoch.
    """

    variables: dict[str, chex.ArrayTree]
    optimizer: optax.OptState
    diverged_at: jax.Array


class Training(NamedTuple):
    """What became of a method's networks, the seeds along the first axis.

    Attributes:
        start: variables after the initialization, before the first step.
        end: variables after the last epoch.
        diverged_at: as in `State`, shape `(seeds,)`.
        loss: mean cross-entropy of each epoch's batches, shape `(seeds, epochs)`; NaN
            from the epoch on in which a seed diverged.
        accuracy: percentage of the test images that are classified correctly after each
            epoch, likewise.
        seconds: time taken, the compilation of programs left out.
    """

    start: dict[str, chex.ArrayTree]
    end: dict[str, chex.ArrayTree]
    diverged_at: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Trainer:
    """Trains a model from several seeds, which share one program and the data.

    Methods that train alike share a program too: a regularizer's strength is an argument
    of it. A seed fixes the random weights and the order of the images, whatever the
    method, so that methods can be compared seed by seed.

    Attributes:
        model: the network.
        train: images to train on. Those that an epoch's random order leaves over after
            the last full batch sit that epoch out.
        test: images to score, all of them, in evaluation mode.
        seeds: number of seeds: 0, 1, and so on.
        epochs: number of epochs, over which the learning rate falls to 0 as a cosine.
        batch_size: images a step.
        learning_rate: of SGD, at the start.
        momentum: of SGD.
        steps: of an initialization.
        pairs: pairs of kernels that Convolutional Similarity is summed over.
        preserve_norm: whether an initialization keeps each output channel's norm.
    """

    model: CNN
    train: Images
    test: Images
    seeds: int
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    steps: int
    pairs: Pairs
    preserve_norm: bool
    _programs: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def run(
        self, method: Method, strength: float, on_epoch: Callable[[np.ndarray], None]
    ) -> Training:
        """Trains all seeds; `on_epoch` is given each epoch's accuracies."""
        clock, compiling = time.perf_counter(), self._seconds_compiling()
        seeds = jnp.arange(self.seeds)
        variables = self._call("random weights", self._random, seeds)
        params = method.initialize(
            variables["params"],
            lambda params, objective: self._call(
                ("minimize", objective), partial(self._minimize, objective), params
            ),
        )
        start = self._call(
            "running averages",
            partial(with_averages_of, self.model),
            {**variables, "params": params},
            jnp.asarray(self.train.images[:EVALUATED_AT_ONCE]),
        )
        regularizer = method.regularizer
        optimizer = self._call(
            ("optimizer", regularizer),
            jax.vmap(self._optimizer(regularizer, strength).init),
            params,
        )
        state = State(start, optimizer, jnp.zeros(self.seeds, jnp.int32))
        data = jax.tree.map(jnp.asarray, self.train), batches_of(self.test)
        losses, accuracies = [], []
        for epoch in range(self.epochs):
            state, loss, accuracy = self._call(
                ("epoch", regularizer),
                partial(self._epoch, regularizer),
                state,
                seeds,
                jnp.int32(epoch),
                jnp.float32(strength),
                *data,
            )
            losses.append(np.asarray(loss))
            accuracies.append(np.asarray(accuracy))
            on_epoch(accuracies[-1])
        compiling = self._seconds_compiling() - compiling
        return Training(
            start=start,
            end=state.variables,
            diverged_at=np.asarray(state.diverged_at),
            loss=np.stack(losses, axis=1).astype(np.float64),
            accuracy=np.stack(accuracies, axis=1).astype(np.float64),
            seconds=time.perf_counter() - clock - compiling,
        )

    def _call(self, name: Hashable, function: Callable, *arguments: Any) -> Any:
        """`function(*arguments)` through a program compiled at the name's first call."""
        if name not in self._programs:
            clock = time.perf_counter()
            program = jax.jit(function).lower(*arguments).compile()
            self._programs[name] = program, time.perf_counter() - clock
        return self._programs[name][0](*arguments)

    def _seconds_compiling(self) -> float:
        return sum(seconds for _, seconds in self._programs.values())

    def _random(self, seeds: jax.Array) -> dict[str, Any]:
        image = jnp.zeros((1, *self.train.images.shape[1:]))
        return jax.vmap(lambda seed: dict(self.model.init(jax.random.key(seed), image)))(
            seeds
        )

    def _minimize(self, objective: Objective, params: chex.ArrayTree) -> chex.ArrayTree:
        def minimize(params: chex.ArrayTree) -> chex.ArrayTree:
            return cs.minimize_similarity(
                params,
                self.steps,
                preserve_norm=self.preserve_norm,
                pairs=self.pairs,
                **objective._asdict(),
            )[0]

        return jax.vmap(minimize)(params)

    def _optimizer(
        self, regularizer: Objective | None, strength: Any
    ) -> optax.GradientTransformation:
        steps = self.epochs * (len(self.train.labels) // self.batch_size)
        sgd = optax.sgd(
            optax.cosine_decay_schedule(self.learning_rate, steps), self.momentum
        )
        if regularizer is None:
            return sgd
        # Before the optimizer: the same as adding strength * similarity to the loss.
        similarity = cs.add_convolutional_similarity(
            strength, pairs=self.pairs, **regularizer._asdict()
        )
        return optax.chain(similarity, sgd)

    def _epoch(
        self,
        regularizer: Objective | None,
        state: State,
        seeds: jax.Array,
        epoch: jax.Array,
        strength: jax.Array,
        train: Images,
        test: Images,
    ) -> tuple[State, jax.Array, jax.Array]:
        """The next state, mean training loss and test accuracy of every seed."""
        optimizer = self._optimizer(regularizer, strength)

        def one(state: State, seed: jax.Array) -> tuple[State, jax.Array, jax.Array]:
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            order = jax.random.permutation(key, len(train.labels))
            steps = len(order) // self.batch_size
            order = order[: steps * self.batch_size].reshape(steps, self.batch_size)
            trained, loss = train_epoch(self.model, optimizer, state, train, order)
            healthy = jnp.isfinite(loss) & all_finite(trained.variables)
            healthy &= state.diverged_at == 0
            state = jax.tree.map(partial(jnp.where, healthy), trained, state)
            state = state._replace(
                diverged_at=jnp.where(
                    healthy | (state.diverged_at > 0), state.diverged_at, epoch + 1
                )
            )
            percentage = accuracy(self.model, state.variables, test)
            return (
                state,
                jnp.where(healthy, loss, jnp.nan),
                jnp.where(healthy, percentage, jnp.nan),
            )

        return jax.vmap(one)(state, seeds)


def with_averages_of(
    model: CNN, variables: dict[str, Any], images: jax.Array
) -> dict[str, Any]:
    """Networks with running averages that are right for `images`, one a seed.

    As Flax makes them, they are 0 and 1 whatever the weights, and what a network does
    before training could not be compared with what it does after.
    """

    def one(variables: dict[str, Any]) -> dict[str, Any]:
        collections = [name for name in variables if name != "params"]
        follow = model.clone(momentum=0.0)
        _, averages = follow.apply(variables, images, train=True, mutable=collections)
        return {**variables, **averages}

    return jax.vmap(one)(variables)


def train_epoch(
    model: CNN,
    optimizer: optax.GradientTransformation,
    state: State,
    train: Images,
    order: jax.Array,
) -> tuple[State, jax.Array]:
    """A step for each row of `order`, indices of images; and the mean loss."""

    def loss_of(
        params: chex.ArrayTree, statistics: dict[str, Any], batch: Images
    ) -> tuple[jax.Array, dict[str, Any]]:
        logits, updated = model.apply(
            {"params": params, **statistics},
            batch.images,
            train=True,
            mutable=list(statistics),
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return loss.mean(), dict(updated)

    def step(
        carry: tuple[dict[str, Any], optax.OptState], indices: jax.Array
    ) -> tuple[tuple[dict[str, Any], optax.OptState], jax.Array]:
        variables, optimizer_state = carry
        statistics = {k: v for k, v in variables.items() if k != "params"}
        params = variables["params"]
        batch = Images(train.images[indices], train.labels[indices])
        (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params, statistics, batch
        )
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        params = optax.apply_updates(params, updates)
        return ({"params": params, **statistics}, optimizer_state), loss

    carry = (state.variables, state.optimizer)
    (variables, optimizer_state), losses = jax.lax.scan(step, carry, order)
    return State(variables, optimizer_state, state.diverged_at), losses.mean()


def all_finite(tree: chex.ArrayTree) -> jax.Array:
    """Whether no number of the tree is NaN or infinite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
