"""The command line: options that do not parse, bad input, interruptions, exit codes."""

import contextlib
import dataclasses
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import hypothesis
import pytest
from hypothesis import strategies

from experiments import command_line, options


@dataclass(frozen=True)
class Config:
    """Options of every kind."""

    seeds: int = 5
    train_size: int | None = None
    methods: tuple[str, ...] = ("none",)
    pairs: Literal["all", "adjacent"] = "all"
    rate: float = 0.5
    name: str = "digits"
    output: Annotated[Path | None, command_line.unset("PATH", "a new one")] = None
    download: bool = False


def run(*argv, main=lambda config: None, **about):
    return command_line.run(main, Config, argv, prog="python -m x", **about)


def test_options_become_the_config():
    argv = "--seeds 2 --train_size=3 --methods a b --rate -1e-3 --download"
    seen = []
    assert run(*argv.split(), main=seen.append) == 0
    values = {"seeds": 2, "train_size": 3, "methods": ("a", "b"), "rate": -0.001}
    assert seen == [Config(**values, download=True)]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("--seeds x", "error: --seeds is 'x'; expected an int\n"),
        ("--rate 1/2", "error: --rate is '1/2'; expected a float\n"),
        ("--train_size many", "error: --train-size is 'many'; expected an int\n"),
        ("--seeds 3000000000", "--seeds is 3000000000; expected 2147483647 at most"),
        ("--rate 1e39", "--rate is 1e+39; expected 3.4e+38 at most"),
        ("--rate -inf", "--rate is -inf"),
        ("--pairs some", "--pairs"),
        ("--methods", "--methods is without a value"),
        ("--download yes", "Unrecognized options: yes"),
        ("--seed 3", "--seed, 3; perhaps you meant --seeds"),
        ("--colour red", "--colour"),
        ("7 --seeds 3", "7"),
    ],
)
def test_what_does_not_parse_is_one_line_that_names_it(argv, named, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(*argv.split(), main=pytest.fail) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err and re.fullmatch(r"error: [^\n\x1b│─]*\n", err)


VALUES = (
    *("", "x", "0", "-1", "1.5", "1e39", "-1e-400", "nan", "inf", "None", "True", "--"),
    *("9" * 30, "9" * 5000, "é\udcff", "a b", "=", "[31m", "none", "~nouser/x", "{}"),
)
OPTIONS = [command_line.flag(field.name) for field in dataclasses.fields(options.Config)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Tyro's, of odd strings
@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from([*OPTIONS, "--no-such", "-x", "stray"]),
            strategies.sampled_from(["", "=", " "]),
            strategies.sampled_from(VALUES),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_line_ends_in_a_traceback(given):
    argv = []
    for option, joint, value in given:
        argv += [option, value] if joint == " " else [option + (joint and joint + value)]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = command_line.run(
            options.Config.check, options.Config, argv, prog="python -m x"
        )
    assert (code, said.getvalue().count("\n")) in ((0, 0), (2, 1))


def test_a_switch_that_is_on_may_be_turned_off():
    seen = []
    defaults = {"defaults": lambda _: Config(download=True)}
    for argv in ("", "--no-download"):
        run(*argv.split(), main=seen.append, **defaults)
    assert [config.download for config in seen] == [True, False]


def raising(error):
    def main(config):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("a\n  message of\nlines"), 2, "error: a message of lines"),
        (OSError(28, "No space left"), 2, "error: [Errno 28] No space left"),
        (ValueError(), 2, "error: ValueError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("go on"), 130, "interrupted: go on"),
    ],
)
def test_bad_input_and_interruptions_are_one_line(error, code, message, capsys):
    assert run(main=raising(error)) == code
    assert capsys.readouterr() == ("", f"{message}\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 80 TiB"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
    ],
)
def test_a_lack_of_memory_names_what_could_be_smaller(error, capsys):
    code = command_line.run(raising(error), options.Config, (), prog="python -m x")
    assert code == 2
    assert capsys.readouterr().err == (
        "error: out of memory with --batch-size 64, --model cnn, --width 1.0, --seeds 1; "
        "expected smaller ones\n"
    )


def test_other_errors_are_defects_and_keep_their_traceback():
    assert run(main=lambda config: 1) == 1  # an exit code is none
    for error in (ZeroDivisionError, RuntimeError):
        with pytest.raises(error):
            run(main=raising(error()))


@pytest.mark.parametrize(("code", "left"), [(0, "by the door\n"), (2, "")])
def test_a_process_that_was_stopped_ends_at_once(code, left):
    program = (
        "import atexit, sys; from experiments import command_line\n"
        "atexit.register(print, 'by the door', file=sys.stderr)\n"
        f"print('out', end=''); command_line.leave({code})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "out", left)


def test_help_is_printed_and_nothing_run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    description = (
        "What it does.\n\n    python -m x --that-is-longer-than-a-line\n\n"
        "Does it,\nand more than one line of forty says.\n\n"
        "* a\n* b, which is on a line longer than forty\n"
    )
    with pytest.raises(SystemExit, match="0"):
        run("--seeds", "x", "--help", main=pytest.fail, description=description)
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m x")
    assert (
        "\n\nWhat it does.\n\n    python -m x --that-is-longer-than-a-line\n\n"
        "Does it, and more than one line of forty\nsays.\n\n"
        "* a\n* b, which is on a line longer than\n  forty\n"
    ) in out
    assert re.search(r"--output PATH +\(default: a new one\)", out)
    assert err == ""
