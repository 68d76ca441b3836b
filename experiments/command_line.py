"""A dataclass as a command line, with errors that fit on one line."""

import contextlib
import difflib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import tyro

Config = TypeVar("Config")

INTERRUPTED = 130
# What values are, in words.
KINDS: dict[Any, str] = {
    bool: "nothing after it",
    int: "a whole number",
    float: "a number",
    str: "one name",
    Path: "one path",
}


def run(
    main: Callable[[Config], None],
    config: type[Config],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str = "",
    defaults: Callable[[Sequence[str]], Config | None] = lambda argv: None,
) -> int:
    """Parses the command line into `config`, runs `main` on it.

    Args:
        main: does the work; a `ValueError` or `OSError` that it raises is taken as
            bad input.
        config: dataclass whose fields, with their docstrings, are the options. All
            have defaults.
        argv: arguments, default those of the process.
        prog: the command as a user types it, shown by `--help`.
        description: what `--help` says first. Tyro joins the lines of a paragraph.
        defaults: from the arguments, the values that all others start from; None for
            those of the dataclass.

    Returns:
        Exit code: 0; 2 after bad input, with one line `error: ...` on stderr; 130
        when interrupted. `--help` leaves through `SystemExit(0)`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # "±" need not end a run
        sys.stdout.reconfigure(errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    # Tyro would put two blank lines in front of a list or a command.
    description = re.sub(r"\n\n(?=\W)", "\n", description)
    try:
        given = {} if (default := defaults(argv)) is None else {"default": default}
        main(parse(config, argv, prog=prog, description=description, **given))
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(": ".join(["interrupted", *map(str, interruption.args)]), file=sys.stderr)
        return INTERRUPTED
    return 0


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
    """What the arguments say, as Tyro reads them.

    Raises:
        ValueError: an option is unknown, or has a value of another kind.
    """
    try:
        return _tyro(config, argv, **about)
    except SystemExit as leaving:
        if not leaving.code:  # --help
            raise
    # Tyro says what is wrong in a box of many lines. An option that is wrong is wrong
    # by itself too, which tells it from the others.
    options = _by_option(argv)
    wrong = (option for option in options if not _parses(config, option, **about))
    hints = get_type_hints(config)
    kinds = {flag(name): kind for name, kind in hints.items()}
    if _has_on(config, about.get("default")):
        kinds |= {flag(f"no_{name}"): bool for name in hints if hints[name] is bool}
    raise ValueError(_complaint(kinds, *next(wrong, argv)))


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

    Args:
        metavar: what `--help` calls the option's value.
        meaning: what `--help` says the default is.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {meaning})")


def _tyro(config: type[Config], argv: Sequence[str], **about: Any) -> Config:
    # A switch that is on may be given again, or be turned off by --no-.
    on = _has_on(config, about.get("default"))
    markers = () if on else (tyro.conf.FlagCreatePairsOff,)
    with contextlib.redirect_stderr(io.StringIO()):
        return tyro.cli(config, args=argv, config=markers, **about)


def _has_on(config: type, default: object) -> bool:
    """Whether a switch is on by default."""
    values = vars(config() if default is None else default).values()
    return any(value is True for value in values)


def _by_option(argv: Sequence[str]) -> list[list[str]]:
    """Each option with its values.

    >>> _by_option(["--steps", "-3", "--methods", "a", "b", "--seeds=2"])
    [['--steps', '-3'], ['--methods', 'a', 'b'], ['--seeds=2']]
    """
    options: list[list[str]] = []
    for argument in argv:
        if not options or re.match(r"-(?![\d.])", argument):
            options.append([])
        options[-1].append(argument)
    return options


def _parses(config: type, argv: Sequence[str], **about: Any) -> bool:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _tyro(config, argv, **about)
    except SystemExit as leaving:
        return not leaving.code
    return True


def _complaint(kinds: dict[str, Any], option: str, *values: str) -> str:
    """What is wrong with an option, and what was expected."""
    option, *more = option.split("=", 1)
    kind = kinds.get(option.replace("_", "-"))
    if kind is None:
        close = difflib.get_close_matches(option, kinds, n=1)
        return f"{option} is no option; expected {''.join(close) or 'those of --help'}"
    came = repr(" ".join([*more, *values])) if more or values else "without a value"
    if get_origin(kind) is Literal:
        expected = " or ".join(get_args(kind))
    else:  # of a union with None, the other
        expected = KINDS[(get_args(kind) or (kind,))[0]]
    return f"{option} is {came}; expected {expected}"
