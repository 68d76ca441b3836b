"""A dataclass as a command line, with errors that fit on one line."""

import contextlib
import io
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

Config = TypeVar("Config")

BAD_INPUT, INTERRUPTED = 2, 130
# What int32 and float32 can hold.
LARGEST: dict[type, float] = {int: 2**31 - 1, float: 3.4e38}
# Options that say how much memory is needed.
SIZES = ("batch_size", "image_size", "model", "width", "seeds")


def run(
    main: Callable[[Config], int | None],
    config: type[Config],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str = "",
    defaults: Callable[[Sequence[str]], Config | None] = lambda argv: None,
) -> int:
    """Parses the command line into `config`, runs `main` on it.

    A `ValueError` or `OSError` that `main` raises is taken as bad input, and so is the
    memory that it lacks.

    Args:
        main: does the work; it may return an exit code.
        config: dataclass whose fields, all with defaults, are the options.
        argv: arguments, default those of the process.
        prog: the command as a user types it.
        description: what `--help` says first; its paragraphs are wrapped.
        defaults: from the arguments, the values that all others start from.

    Returns:
        Exit code: that of `main`, by default 0; 2 after bad input, with one line
        `error: ...` on stderr; 130 when interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # "±" need not end a run
        sys.stdout.reconfigure(errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    description = Lines(
        wrapped(description, min(shutil.get_terminal_size().columns, 100))
    )
    parsed: Config | None = None
    try:
        given = {} if (default := defaults(argv)) is None else {"default": default}
        parsed = parse(config, argv, prog=prog, description=description, **given)
        return main(parsed) or 0
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"error: out of memory{_sizes(parsed)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interruption:
        print(": ".join(["interrupted", *map(str, interruption.args)]), file=sys.stderr)
        return INTERRUPTED


def leave(code: int) -> NoReturn:
    """Ends the process with that exit code.

    After an error or an interruption at once: what is still at work on other threads,
    XLA's or TensorStore's, can crash the interpreter on its way out, or write below the
    error.
    """
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def parse(config: type[Config], argv: Sequence[str], **about: Any) -> Config:
    """What the arguments say, as Tyro reads them."""
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            parsed = tyro.cli(config, args=argv, **about)
    except SystemExit as leaving:
        if not leaving.code:  # --help
            raise
        raise ValueError(unboxed(boxed.getvalue())) from None
    default = about.get("default") or config()
    for name, value in vars(parsed).items():
        if value == () != getattr(default, name):
            raise ValueError(f"{flag(name)} is without a value; expected one or more")
        for one in value if isinstance(value, tuple) else [value]:
            limit = LARGEST.get(type(one))
            if limit is not None and abs(one) > limit:
                raise ValueError(f"{flag(name)} is {one}; expected {limit} at most")
    return parsed


class Lines(str):
    """A text that Tyro, which splits it to join its lines, leaves as it is."""

    def split(self, *_: object, **__: object) -> list[str]:
        """The text itself."""
        return [self]


def wrapped(text: str, width: int) -> str:
    """With paragraphs and `*` items of lines of that width; indented lines stay."""
    filler = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    parts = re.split(r"\n(?=[* \n])|(?<=\n)\n", text.strip())
    for i, part in enumerate(parts):
        if not part.startswith(" "):
            filler.subsequent_indent = "  " if part.startswith("*") else ""
            parts[i] = filler.fill(part)
    return "\n".join(parts)


def unboxed(text: str) -> str:
    """The complaint, on one line, of the box of many in which Tyro says it.

    >>> print(
    ...     unboxed('''
    ... ╭─ Unrecognized options ──────────╮
    ... │ Unrecognized options: --seed, 3 │
    ... │ ─────────────────────────────── │
    ... │ Perhaps you meant:              │
    ... │     --seeds INT                 │
    ... ╰─────────────────────────────────╯''')
    ... )
    Unrecognized options: --seed, 3; perhaps you meant --seeds INT
    """
    no_number = r"Error parsing (\S+): .*? (?:for|to) (int|float)\b.*?: ('.*?'|\".*?\")"
    drawn = r"\x1b\[[\d;]*m|[╭╮╰╯│─]|-{4,}"  # colours and lines
    _, *lines = (re.sub(drawn, "", line).strip() for line in text.strip().splitlines())
    if found := re.match(no_number, " ".join(" ".join(lines).split())):
        option, kind, value = found.groups()
        return f"{option} is {value}; expected {'an' if kind == 'int' else 'a'} {kind}"
    said, *parts = re.split(r"\n\n+", "\n".join(lines).strip())
    for part in parts:
        if part.startswith("Perhaps you meant"):
            said += f"; perhaps you meant {part.splitlines()[1]}"
    return " ".join(said.removeprefix("Error parsing ").split())


def flag(name: str) -> str:
    """The option of a field.

    >>> flag("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def check_least(config: object, **least: float) -> None:
    """Raises a ValueError that names the first option below its bound; None is unset."""
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not bound <= value < math.inf:
            raise ValueError(f"{flag(name)} is {value}; expected {bound} or more")


def check_most(config: object, **most: float) -> None:
    """Raises a ValueError that names the first option above its bound; None is unset."""
    for name, bound in most.items():
        value = getattr(config, name)
        if value is not None and value > bound:
            raise ValueError(f"{flag(name)} is {value}; expected {bound} or less")


def check_positive(config: object, *names: str) -> None:
    """Raises a ValueError that names the first option that is not more than 0."""
    for name in names:
        if not 0 < (value := getattr(config, name)) < math.inf:
            raise ValueError(f"{flag(name)} is {value}; expected more than 0")


def check_fraction(config: object, *names: str) -> None:
    """Raises a ValueError that names the first option not in [0, 1)."""
    for name in names:
        if not 0 <= (value := getattr(config, name)) < 1:
            raise ValueError(f"{flag(name)} is {value}; expected 0 to less than 1")


def unset(metavar: str, meaning: str) -> object:
    """Marks, in `Annotated`, an option whose default None means something.

    `meaning` is what `--help` says the default is.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {meaning})")


def _sizes(config: object) -> str:
    """Options that could be smaller, with their values."""
    given = [
        f"{flag(name)} {value}"
        for name in SIZES
        if (value := getattr(config, name, None)) is not None
    ]
    return f" with {', '.join(given)}; expected smaller ones" if given else ""
