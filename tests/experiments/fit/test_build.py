"""What is put together of the options: a network of one's own is read as it convolves."""

import sys
from types import ModuleType, SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.fit.build import build_engine
from experiments.interventions import intervention
from experiments.losses import PAPER, PLAIN, Penalty
from experiments.options import Config
from tests.library import oracle

FEED = SimpleNamespace(
    classes=3,
    shape=(8, 8, 4),
    steps=1,
    mean=np.zeros(4, np.float32),
    deviation=np.ones(4, np.float32),
)


class Grouped(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, train=False):
        maps = nn.Conv(8, (3, 3), feature_group_count=4)(images)
        return nn.Conv(self.classes, (1, 1))(maps).mean((1, 2))


@pytest.fixture
def engine(monkeypatch):
    module = ModuleType("of_ones_own")
    module.Grouped = Grouped
    monkeypatch.setitem(sys.modules, "of_ones_own", module)
    config = Config(model="of_ones_own:Grouped", batch_size=2)
    return build_engine(config, intervention("paper-reg"), FEED, seeds=1)


@pytest.fixture
def variables(engine):
    return engine.model.init(jax.random.key(0), np.zeros((1, *FEED.shape), np.float32))


def test_its_groups_count_where_kernels_are_measured(engine, variables):
    kernels = [variables["params"][f"Conv_{n}"]["kernel"] for n in (0, 1)]
    expected = [
        oracle.total_similarity([kernel], feature_group_count=groups)
        for kernel, groups in zip(kernels, (4, 1), strict=True)
    ]
    stacked = jax.tree.map(lambda leaf: leaf[None], variables)
    measured = engine.kernels(stacked)
    np.testing.assert_allclose(measured.paper_loss[0], expected, rtol=1e-5)


def test_its_groups_count_where_losses_are_added(engine, variables):
    params = variables["params"]
    zeros = jax.tree.map(np.zeros_like, params)

    def added(options):
        transform = PAPER.add_gradient(1.0, options)
        return transform.update(zeros, transform.init(params), params)[0]

    ours = added(engine.options)["Conv_0"]["kernel"]
    group = params["Conv_0"]["kernel"][..., :2]
    of_group = PAPER.add_gradient(1.0, PLAIN)
    tree, zero = {"kernel": group}, {"kernel": np.zeros_like(group)}
    expected, _ = of_group.update(zero, of_group.init(tree), tree)
    np.testing.assert_allclose(ours[..., :2], expected["kernel"], rtol=1e-5)


def test_penalties_read_kernels_as_they_are_convolved_with(engine, variables):
    penalty = Penalty(lambda kernel: (kernel**2).sum() / 2)
    slope = penalty.gradient(variables["params"], engine.options)
    expected = variables["params"]["Conv_0"]
    np.testing.assert_allclose(slope["Conv_0"]["kernel"], expected["kernel"], rtol=1e-6)
    assert not slope["Conv_0"]["bias"].any()
