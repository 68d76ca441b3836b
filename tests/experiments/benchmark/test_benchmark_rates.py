"""What the machine can do: programs of many multiply-adds, and rates by their times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import rates
from experiments.benchmark.timing import Timing, compiled


@pytest.mark.parametrize("count", [16, 64])
def test_multiply_adds(count):
    x = 0.25
    chains = [x + i for i in range(8)]
    for _ in range(count // 8):
        chains = [y * x + x for y in chains]
    result = rates.multiply_adds(count, jnp.full(3, x))
    np.testing.assert_allclose(result, np.full(3, sum(chains)), rtol=1e-6)
    operations = jax.make_jaxpr(lambda x: rates.multiply_adds(count, x))(jnp.ones(3))
    assert str(operations).count("mul ") == count


def test_programs_are_bound_by_arithmetic():
    x = jnp.full(1024, 0.5)
    program = compiled(lambda x: rates.multiply_adds(rates.MANY, x["x"]), {"x": x})
    assert program.extra_memory == 0  # one loop: nothing is written on the way
    # Were they bound by memory, the few would take no longer than a copy.
    assert rates.FEW >= 100
    assert rates.MANY > rates.FEW


def test_rates_are_of_bytes_and_operations(monkeypatch):
    took = {"copy": 2.0, "read": 0.5, "few": 1.0, "many": 4.0}
    monkeypatch.setattr(
        rates,
        "in_turn",
        lambda programs, **_: {name: Timing(took[name], (), 1) for name in programs},
    )
    measured = rates.rates(1024)
    expected = [8 * 1024 / 2e9, 4 * 1024 / 0.5e9, 768 * 1024 / 3e9]
    np.testing.assert_allclose(list(measured.values()), expected, rtol=1e-12)
