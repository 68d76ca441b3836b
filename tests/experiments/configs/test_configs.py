"""Every configuration loads, fits its dataset, and says how to run it."""

import ast
import importlib
import inspect

import jax
import jax.numpy as jnp
import pytest

from experiments.configs import configuration, names
from experiments.fit.optimizer import learning_rates
from experiments.models import build

# Height, width, channels and classes, from the datasets' own publications.
DATASETS = {
    "digits": (8, 8, 1, 10),
    "cifar10": (32, 32, 3, 10),
    "imagenet2012": (None, None, 3, 1000),
}
# What the paper trains, and the official script's learning rates at some epochs.
PAPER = {
    "cifar10_cnn": ("cnn", "cifar10", {0: 0.01, 99: 0.01, 199: 0.01}),
    "cifar10_resnet18": ("resnet18", "cifar10", {0: 0.1, 99: 0.1, 100: 0.01, 150: 1e-3}),
    "cifar10_resnet50": ("resnet50", "cifar10", {0: 0.1, 99: 0.1, 100: 0.01, 150: 1e-3}),
    "cifar10_vgg19": ("vgg19", "cifar10", {0: 0.1, 99: 0.1, 100: 0.01, 150: 1e-3}),
    "cifar10_wrn28_10": ("wrn28-10", "cifar10", {0: 0.1, 99: 0.1, 100: 0.01, 150: 1e-3}),
    "imagenet_resnet50": ("resnet50-imagenet", "imagenet2012", {0: 0.1, 19: 0.1}),
}


@pytest.mark.parametrize("name", names())
def test_its_options_are_valid_and_it_has_nothing_else(name):
    config = configuration(name)
    config.check()
    assert config.config == name
    assert config.output is config.data_dir is None
    module = importlib.import_module(f"experiments.configs.{name}")
    docstring, *imports, assignment = ast.parse(inspect.getsource(module)).body
    assert isinstance(docstring, ast.Expr) and isinstance(assignment, ast.Assign)
    assert {type(part) for part in imports} == {ast.ImportFrom}
    text = inspect.getdoc(module)
    assert f"\n    python -m experiments.train --config {name}\n" in text
    assert "\nTime: " in text and "Test accuracy" in text


@pytest.mark.parametrize("name", names())
def test_its_network_takes_the_images_of_its_dataset(name, relaxed_jax):
    config = configuration(name)
    height, width, channels, classes = DATASETS[config.dataset]
    height, width = height or config.image_size, width or config.image_size
    model = build(config.model, classes=classes, width=config.width)
    assert min(height, width) >= model.smallest_image
    images = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert logits.shape == (2, classes)


@pytest.mark.parametrize("name", sorted({*names(), *PAPER} - {"digits"}))
def test_the_recipe_is_that_of_the_official_script(name):
    config = configuration(name)
    model, dataset, expected = PAPER[name]
    assert (config.model, config.dataset) == (model, dataset)
    assert config.epochs == (20 if dataset == "imagenet2012" else 200)
    assert (config.batch_size, config.momentum) == (128, 0.9)
    assert (config.weight_decay, config.label_smoothing) == (0, 0)
    assert (config.augment, config.method, config.dtype) == (False, "none", "float32")
    steps = 10
    rate = learning_rates(
        config.schedule, config.learning_rate, config.milestones, config.epochs, steps
    )
    rates = {epoch: float(rate(epoch * steps)) for epoch in expected}
    assert rates == pytest.approx(expected)
