"""Run folders: nothing in them is half written, and nothing of others is touched.

A run claims its folder and writes file by file, each as a whole.
"""

import csv
import fcntl
import itertools
import json
import math
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import convsim_jax as cs
from experiments.command_line import flag

# Files of `replacing`: one is left behind if the process is killed meanwhile.
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


def fresh(path: Path) -> Path:
    """Makes a folder of that name, or of `path-2`, `path-3` where it is taken."""
    numbered = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    for candidate in itertools.chain([path], numbered):
        with writing(candidate), suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
    raise AssertionError  # there is no last number


def claim(
    path: Path,
    options: Mapping[str, Any],
    about: Mapping[str, Any],
    name: str = "--output",
    *,
    settled: Mapping[str, Any] | None = None,
    growing: Sequence[str] = (),
) -> None:
    """Makes `path` the folder of a run, if it is not that of an earlier, equal one.

    What a kill left half written is deleted; what another program is writing is not. Once
    there is a `results.json`, what is noted stays as it is; until then, what was noted
    differently goes to the list `"earlier"`, such as the device on which a run was begun
    that went on on another.

    Args:
        path: new, empty, or claimed before with the same options.
        options: all that the results depend on, as JSON has it.
        about: what else to note in `config.json`.
        name: of the option that says where the folder is, for errors.
        settled: by option, what it stands for, such as the images of a dataset: to be
            the same where it was noted before.
        growing: options that may be larger than before; then the results are deleted.

    Raises:
        ValueError: the folder holds results of other options, or anything else.
        OSError: it cannot be written.
    """
    config, results = path / "config.json", path / "results.json"
    note = plain(
        {"options": options, **({"settled": settled} if settled else {}), **about}
    )
    with writing(path, name):
        files = list(path.iterdir()) if path.is_dir() else []
        left = [file for file in files if TEMPORARY.fullmatch(file.name)]
        if config.exists():
            noted = read_json(config)
            _check_same(note, noted, config, name, growing)
            if any(noted["options"][option] != options[option] for option in growing):
                results.unlink(missing_ok=True)
            note |= _earlier(noted, note)
        elif len(files) > len(left):
            raise ValueError(
                f"{name} is {path}, which holds something other than a run; expected a "
                "new or empty folder, or that of an earlier run"
            )
        for file in left:
            if not _being_written(file):
                file.unlink(missing_ok=True)
        path.mkdir(parents=True, exist_ok=True)
        if not results.exists():
            write_json(config, note)


@contextmanager
def no_stub(path: Path) -> Iterator[None]:
    """Deletes a folder that was claimed, if what is done with it fails before a file."""
    try:
        yield
    except BaseException:
        files = {file.name for file in path.rglob("*") if not file.is_dir()}
        if files <= {"config.json"}:
            shutil.rmtree(path, ignore_errors=True)
        raise


@contextmanager
def replacing(path: Path, mode: str) -> Iterator[IO]:
    """Opens a file to write; `path` is replaced when all of it is on the disk.

    Processes on one host or several may write the same file: the last one to end wins.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        encoding = None if "b" in mode else "utf-8"
        with temporary.open(mode, encoding=encoding) as file:
            with suppress(OSError):  # there are file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def versions(*more: str) -> dict[str, str]:
    """Of what results can depend on, and of more packages, if they are installed."""
    found = {"convsim_jax": cs.__version__, "python": platform.python_version()}
    for name in ("jax", "flax", "optax", *more):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def write_json(path: Path, value: Any) -> None:
    """Writes named tuples as objects, and null for a number that is not finite."""
    with replacing(path, "w") as file:
        json.dump(plain(value), file, indent=1, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes a table; what is not finite is left empty."""
    with replacing(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            cells = (plain(value) for value in row)
            writer.writerow("" if cell is None else cell for cell in cells)


@contextmanager
def writing(path: Path, name: str = "--output") -> Iterator[None]:
    """Says of which folder it is that it cannot be written, and what it is called."""
    try:
        yield
    except OSError as error:
        file = error.filename2 or error.filename  # of two, that which was to be replaced
        reason = ": ".join(map(str, filter(None, (error.strerror, file))))
        raise OSError(
            f"{name} is {path}, which cannot be written: {reason or error}"
        ) from error


def plain(value: Any) -> Any:
    """`value` as JSON has it, with None for a number that is not finite."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _being_written(file: Path) -> bool:
    """Whether a program that lives has it open: the lock ends with the program."""
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is gone, or cannot be locked
        return False
    return False


def _earlier(noted: dict[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
    """What was noted before, but for what is noted again."""
    past = noted.pop("earlier", [])
    if noted != note:
        same = noted["options"] == note["options"]
        past = [*past, {key: noted[key] for key in noted if key != "options" or not same}]
    return {"earlier": past} if past else {}


def _check_same(
    note: Mapping[str, Any], noted: Any, path: Path, folder: str, growing: Sequence[str]
) -> None:
    earlier = noted.get("options") if isinstance(noted, dict) else None
    if not isinstance(earlier, dict):
        raise ValueError(f"{path} is damaged: it names no options")
    for name, value in note["options"].items():
        before = earlier.get(name)
        if name in growing and isinstance(before, int) and before < value:
            continue
        # A path was noted as it was given, by earlier versions; now it is resolved.
        known = before, os.path.realpath(before) if isinstance(before, str) else before
        if name not in earlier or value not in known:
            raise ValueError(
                f"{folder} holds results of other options: {flag(name)} is "
                f"{json.dumps(value)}, and was {json.dumps(before)} in {path}"
            )
    settled = noted.get("settled", {})
    for name, value in note.get("settled", {}).items():
        if value != (before := settled.get(name, value)):
            now, then = (x if isinstance(x, dict) else {"it": x} for x in (value, before))
            told = ", ".join(
                f"{part} is {str(now[part])[:80]}, and was {str(then.get(part))[:80]}"
                for part in now
                if now[part] != then.get(part)
            )
            raise ValueError(
                f"{flag(name)} no longer stands for what it did when the run in "
                f"{path.parent} was begun: {told}"
            )
