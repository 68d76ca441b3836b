"""What a benchmark is measured on: the device, and versions of what runs there."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax

from experiments import run_folder


def environment(*, torch: bool) -> dict[str, str]:
    """The device and versions; PyTorch's if it is to be measured and is installed."""
    more = ("jaxlib", "torch") if torch else ("jaxlib",)
    return {"device": device(), **run_folder.versions(*more)}


def device() -> str:
    """The device, in words."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if "model name" in line]
        name = names[0] if names else name
    return f"{os.cpu_count()} cores of {name}"


def check_unchanged(folder: Path, here: Mapping[str, str]) -> None:
    """Raises a `ValueError` if a run folder's rows are of another environment."""
    config = folder / "config.json"
    with run_folder.writing(folder):
        earlier = run_folder.read_json(config) if config.exists() else None
    if not isinstance(earlier, dict):
        return  # new, or damaged, of which `claim` tells
    there = earlier.get("environment", {})
    for name in {**here, **there}:
        now, then = (where.get(name, "absent") for where in (here, there))
        if now != then:
            raise ValueError(
                f"--output holds results of another environment: {name} is {now}, and "
                f"was {then} in {config}"
            )
