"""Strict JAX for every test: no silent promotion of dtypes or ranks."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # for test_sharding.py

hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,  # a new shape compiles first
    max_examples=30,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _programs_are_kept(tmp_path_factory):
    """What an earlier test compiled is not compiled again; of one process, of one run."""
    directory = tmp_path_factory.mktemp("programs")
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(autouse=True)
def _strict_jax():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def relaxed_jax():
    """For code of other libraries that promotes, Flax's batch norm among them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
