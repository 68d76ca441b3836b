"""The library's tests on each Python that is here, with lowest and with newest versions.

`make matrix` runs it: a script, no test. The lowest versions are the floors that
`pyproject.toml` states, which uv reads; `constraints.txt` has no say. Each environment
is one of its own, in `build/matrix`.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
SHOWN = ["jax", "optax", "chex", "flax", "numpy"]
TESTS = ["--numprocesses", "2", "tests/library", "convsim_jax"]


def main() -> None:
    """Runs all, prints a table, and exits with 1 if anything failed."""
    table = Table("Python", "versions", *SHOWN, "tests", box=None)
    passed = True
    for version, python in pythons().items():
        for name, resolution in RESOLUTIONS.items():
            print(f"Python {version}, {name} versions", flush=True)
            environment = ROOT / "build" / "matrix" / f"{version}-{name}"
            try:
                installed = install(environment, python, resolution)
            except subprocess.CalledProcessError:  # says why itself
                installed, (said, good) = {}, ("cannot be installed", False)
            else:
                said, good = run_tests(environment / "bin" / "python")
            passed &= good
            table.add_row(version, name, *(installed.get(n, "") for n in SHOWN), said)
    Console(width=120).print(table)
    sys.exit(not passed)


def pythons() -> dict[str, str]:
    """Version and path of each CPython here that the library is made for."""
    if pyenv := shutil.which("pyenv"):  # which hides all but one otherwise
        versions = subprocess.check_output([pyenv, "versions", "--bare"], text=True)
        os.environ["PYENV_VERSION"] = ":".join(versions.split())
    command = [UV, "python", "list", "--only-installed", "--output-format", "json"]
    found = json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    supported = SpecifierSet(project["requires-python"])
    by_version = sorted(found, key=lambda python: [*python["version_parts"].values()])
    return {
        "{major}.{minor}".format(**python["version_parts"]): python["path"]
        for python in by_version
        if python["implementation"] == "cpython" and python["version"] in supported
    }


def install(environment: Path, python: str, resolution: str) -> dict[str, str]:
    """Makes the environment; returns the version of each package in it."""
    in_it = ["--python", environment / "bin" / "python"]
    how = ["--resolution", resolution, "--editable", f"{ROOT}[tests]"]
    for command in (
        ["venv", "--clear", "--python", python, environment],
        ["pip", "install", *in_it, *how],
    ):
        subprocess.run([UV, *command, "--quiet"], check=True)
    listed = subprocess.check_output([UV, "pip", "list", *in_it, "--format", "json"])
    return {package["name"]: package["version"] for package in json.loads(listed)}


def run_tests(python: Path) -> tuple[str, bool]:
    """The last line of pytest, and whether all passed; a failure is printed in full."""
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr)
    return (done.stdout.strip().splitlines() or ["nothing ran"])[-1], not done.returncode


if __name__ == "__main__":
    main()
