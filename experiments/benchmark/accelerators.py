"""Programs compiled for accelerators that are not there, and what these would do.

XLA's own compilers for NVIDIA GPUs and for TPUs run on a machine that has neither. What
comes out is the real program: its kernels, the bytes that they move, the memory that it
needs. No time is measured: the roofline is bytes over the datasheet's bandwidth, and
kernels times what it takes to launch one.
"""

import importlib.util
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
from jax.experimental import topologies

from experiments.benchmark import hlo

LAUNCH = 2e-6  # seconds; the kernels of a TPU's program are launched as one


class Accelerator(NamedTuple):
    """One kind: JAX's platform; bytes a second and bytes of memory, by the datasheet."""

    platform: str
    bandwidth: float
    memory: float
    about: dict[str, str]
    """What XLA asks: a slice of four TPU chips, or one GPU by CUDA's device query."""


H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 8 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000  device_memory_size: 84978434048
  l2_cache_size: 52428800
  shared_memory_per_core: 233472  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
}
"""
GPU = {"topology_name": "h100", "topology": "1x1x1", "target_config": H100}
ACCELERATORS = {
    "h100": Accelerator("cuda", 3.35e12, 80e9, GPU),
    "v4": Accelerator("tpu", 1.2e12, 32 * 2**30, {"topology_name": "v4:2x2x1"}),
    "v5e": Accelerator("tpu", 0.82e12, 16 * 2**30, {"topology_name": "v5e:2x2"}),
    "v6e": Accelerator("tpu", 1.6e12, 32 * 2**30, {"topology_name": "v6e:2x2"}),
}
# To what libtpu would ask of a machine that has TPUs.
TPU_ANSWERS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
COMPILERS = {
    "cuda": {
        "jax_plugins.xla_cuda12": "jax-cuda12-plugin",
        "nvidia.cuda_nvcc": "nvidia-cuda-nvcc-cu12",
    },
    "tpu": {"libtpu": "libtpu"},
}


def prepare(kinds: Iterable[str]) -> None:
    """To be called before JAX looks for devices.

    Raises:
        ValueError: there is no such kind, or its compiler is not installed.
    """
    for kind in kinds:
        if kind not in ACCELERATORS:
            expected = ", ".join(ACCELERATORS)
            raise ValueError(f"--compile-for is {kind!r}; expected {expected}")
        for module, package in COMPILERS[ACCELERATORS[kind].platform].items():
            if not folders(module):
                raise ValueError(
                    f"--compile-for {kind} needs {package}, which is not installed; "
                    "expected what pip install -e '.[accelerators]' brings"
                )
    jax.config.update("jax_platforms", "cpu")
    for name, value in TPU_ANSWERS.items():
        os.environ.setdefault(name, value)
    for nvcc in folders("nvidia.cuda_nvcc"):
        os.environ["PATH"] += f"{os.pathsep}{Path(nvcc, 'bin')}"


def folders(package: str) -> list[str]:
    """Where a package lies, without importing it; nowhere if it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the package around it
        return []
    return [] if spec is None else list(spec.submodule_search_locations or [])


@cache
def devices(kind: str) -> list[Any]:
    """A GPU, or the four chips of a TPU slice, to be compiled for."""
    platform, _, _, about = ACCELERATORS[kind]
    return list(topologies.get_topology_desc(platform=platform, **about).devices)


def compiled_for(
    kind: str, function: Callable, *arguments: Any, donate: int | tuple[()] = ()
) -> dict[str, Any]:
    """Compiles a function of `jax.ShapeDtypeStruct`s that lie on such devices.

    Returns:
        Of one device: `kernels` that run one after the other; bytes `moved` by them;
        `extra_memory`, bytes at the peak besides arguments and results, and `memory`, in
        all; whether that `fits`; seconds of the roofline; and the bytes of each array
        `exchanged` with other devices, by the collective.
    """
    platform, bandwidth, memory, _ = ACCELERATORS[kind]
    gpu = platform == "cuda"
    options: dict[str, str | bool] = {}
    if gpu:  # there is none to try kernels on
        options = {"xla_gpu_autotune_level": "0"}
        options["xla_gpu_cuda_data_dir"] = folders("nvidia.cuda_nvcc")[0]
    shardings = (leaf.sharding for leaf in jax.tree.leaves(arguments))
    count = max(len(sharding.device_set) for sharding in shardings)
    # Functions that have a form of their own for CPUs must not take it, nor one that was
    # traced before.
    jax.clear_caches()
    with mock.patch.multiple(
        jax, default_backend=lambda: platform, device_count=lambda: count
    ):
        lowered = jax.jit(function, donate_argnums=donate).lower(*arguments)
    program = lowered.compile(options)
    text, needs = program.as_text(), program.memory_analysis()
    assert text is not None and needs is not None  # as of both compilers
    work = hlo.work(text)
    # XLA's count for a TPU knows the padding of its tiles, and what is copied beside.
    moved = work.bytes
    if not gpu and (costs := program.cost_analysis()):
        moved = costs["bytes accessed"]
    whole = needs.argument_size_in_bytes + needs.output_size_in_bytes
    whole += needs.temp_size_in_bytes - needs.alias_size_in_bytes
    return {
        "kernels": work.kernels,
        "moved": moved,
        "extra_memory": needs.temp_size_in_bytes,
        "memory": whole,
        "fits": whole <= memory,
        "memory_seconds": moved / bandwidth,
        "launch_seconds": work.kernels * LAUNCH if gpu else 0.0,
        "exchanged": hlo.exchanged(text),
    }
