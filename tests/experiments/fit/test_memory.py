"""What cannot fit into memory is said before it is made."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.fit import memory
from experiments.fit.build import fitting_model
from experiments.options import Config

FEED = SimpleNamespace(shape=(8, 8, 1), classes=10)


@pytest.mark.parametrize(
    ("options", "seeds", "shape", "message"),
    [
        ({"width": 1e9}, 1, (8, 8, 1), r"takes [\d,]+ GiB .*: 1 x [\d,]+ .*--width"),
        ({"model": "wrn10-999999"}, 1, (8, 8, 1), "--model wrn10-999999 on .* GiB"),
        ({}, 10**12, (8, 8, 1), r"1000000000000 x 94,\d+ weights \(--seeds"),
        ({}, 1, (3000, 3000, 1), "64 images of 3000x3000 .*--batch-size, --image-size"),
        ({"width": 1e-12}, 1, (8, 8, 1), "--width is 1e-12, which leaves none of a lay"),
        ({"width": 0.01}, 1, (8, 8, 1), "32 channels; expected 0.03125 or more"),
        ({}, 1, (7, 8, 1), "has images of 7x8; expected at least 8x8 for cnn"),
    ],
)
def test_what_cannot_be_trained_names_the_options(options, seeds, shape, message):
    feed = SimpleNamespace(shape=shape, classes=10)
    with pytest.raises(ValueError, match=message):
        fitting_model(Config(**options), feed, seeds)


class Sowing(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        self.sow("counts", "calls", images.sum())
        return nn.Dense(10)(images.reshape(len(images), -1))


class Wide(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(7)(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Sowing", "on images of 8x8x1: a step makes of its variables .* others"),
        ("Wide", r"on images of 8x8x1: its result is .*\(64, 7\).*; expected \(64, 10\)"),
    ],
)
def test_networks_of_ones_own_that_cannot_be_trained(name, message):
    with pytest.raises(ValueError, match=message):
        fitting_model(Config(model=f"{__name__}:{name}"), FEED, 1)


@pytest.mark.parametrize(("free", "fits"), [(0.9, False), (1.1, True)])
def test_weights_are_there_four_times_and_half_of_the_maps(monkeypatch, free, fits):
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            return nn.Dense(100, use_bias=False)(images.reshape(len(images), -1))

    images = jax.ShapeDtypeStruct((16, 10, 10, 1), np.float32)
    variables = jax.eval_shape(Linear().init, jax.random.key(0), images)
    weights, pixels = 100 * 100 * 4, 16 * 100 * 4
    needed = 3 * 4 * weights + pixels / 2 / jax.device_count()
    monkeypatch.setattr(memory, "device_memory", lambda: int(free * needed))
    if fits:
        memory.check_memory(Linear(), variables, images, 3)
    else:
        with pytest.raises(ValueError, match=r"3 x 10,000 weights"):
            memory.check_memory(Linear(), variables, images, 3)
