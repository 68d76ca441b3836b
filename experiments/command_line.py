"""A dataclass as a command line, with errors that fit on one line."""

import io
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

Config = TypeVar("Config")


def run(
    main: Callable[[Config], None],
    config: type[Config],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str | None = None,
) -> int:
    """Parses the command line into `config`, runs `main` on it.

    Args:
        main: does the work; a `ValueError` or `OSError` that it raises is taken as
            bad input.
        config: dataclass whose fields, with their docstrings, are the options.
        argv: arguments, default those of the process.
        prog: the command as a user types it, shown by `--help`.
        description: what `--help` says first, default the docstring of `config`.

    Returns:
        Exit code: 0; 2 after bad input, with one line `error: ...` on stderr; 130
        when interrupted. Options that do not parse leave through `SystemExit(2)`,
        as `--help` does through `SystemExit(0)`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # "±" need not end a run
        sys.stdout.reconfigure(errors="replace")
    parsed = tyro.cli(config, args=argv, prog=prog, description=description)
    try:
        main(parsed)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(": ".join(["interrupted", *map(str, interruption.args)]), file=sys.stderr)
        return 130
    return 0
