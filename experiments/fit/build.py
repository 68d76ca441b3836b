"""The one place in which images, model, optimizer and programs are put together."""

from typing import Any

import jax
import jax.numpy as jnp

import convsim_jax as cs
from experiments.data.load import Track, load, select
from experiments.data.source import Source
from experiments.fit.engine import Engine
from experiments.fit.feeds import Feed, Resident, Streamed
from experiments.fit.memory import check_memory
from experiments.fit.optimizer import learning_rates, optimizer
from experiments.interventions import Intervention
from experiments.losses import Decorrelation, Options
from experiments.models import build
from experiments.models.own import attribute
from experiments.options import Config
from experiments.own_code import is_own


def build_feed(config: Config, source: Source, track: Track) -> Feed:
    """The images of a source as the options say: on the device, or streamed."""
    chosen: Any = {"train_size": config.train_size, "validation": config.validation}
    if config.image_size is not None:
        return Streamed(
            source,
            select(source, **chosen),
            config.batch_size,
            config.image_size,
            config.workers,
            config.augment,
        )
    dataset = load(source, **chosen, track=track)
    return Resident(dataset, config.batch_size)


def build_engine(
    config: Config,
    intervention: Intervention,
    feed: Feed,
    *,
    seeds: int,
    first_seed: int = 0,
) -> Engine:
    """The programs that train networks as the options say, on these images.

    They serve every learning rate and strength: `Factors` are arguments of them. The
    method, strength and seeds of `config` are not looked at.
    """
    schedule = learning_rates(
        config.schedule, 1.0, config.milestones, config.epochs, feed.steps
    )
    loss = intervention.during.loss if intervention.during else None
    model, layers = fitting_model(config, feed, seeds)
    options = Options(config.pairs, config.preserve_norm, layers)
    return Engine(
        model=model,
        options=options,
        optimizer=lambda factors: optimizer(
            intervention.optimizer or config.optimizer,
            schedule,
            config.momentum,
            config.weight_decay,
            intervention.during,
            options,
            factors,
        ),
        seeds=seeds,
        first_seed=first_seed,
        mean=feed.mean,
        deviation=feed.deviation,
        of_maps=loss if isinstance(loss, Decorrelation) else None,
        label_smoothing=config.label_smoothing,
        augment=config.augment,
    )


def named_model(config: Config, classes: int, channels: int) -> Any:
    """The network that the options name."""
    return build(
        config.model,
        classes=classes,
        channels=channels,
        width=config.width,
        widths=config.widths,
        activation=config.activation,
        dtype=jnp.dtype(config.dtype),
    )


def fitting_model(
    config: Config, feed: Feed, seeds: int
) -> tuple[Any, cs.ConvLayers | None]:
    """The network that the options name, if it takes these images and fits.

    Also, of one of one's own, what it does with its kernels. The kernels of the others
    are plain, but for strides, which the paper does not look at.
    """
    height, width, channels = feed.shape
    model = named_model(config, feed.classes, channels)
    smallest = attribute(model, "smallest_image", 1)
    if min(height, width) < smallest:
        raise ValueError(
            f"--dataset {config.dataset} has images of {height}x{width}; expected at "
            f"least {smallest}x{smallest} for {config.model}"
        )
    images = jax.ShapeDtypeStruct((config.batch_size, *feed.shape), jnp.float32)
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        logits = jax.eval_shape(model.apply, variables, images)
        expected = (config.batch_size, feed.classes)
        if getattr(logits, "shape", None) != expected:
            raise ValueError(f"its result is {logits}; expected {expected}")
        check_memory(model, variables, images, seeds)
        if not is_own(config.model):
            return model, None
        return model, cs.conv_layers(
            lambda params, variables, images: model.apply(
                {**variables, "params": params}, images
            ),
            variables["params"],
            variables,
            images,
        )
    except Exception as error:
        raise ValueError(
            f"--model {config.model} on images of {height}x{width}x{channels}: {error}"
        ) from error
