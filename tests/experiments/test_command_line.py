"""The command line: options that do not parse, bad input, interruptions, exit codes."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from experiments import command_line, theory


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
    ("argv", "message"),
    [
        ("--seeds x", "--seeds is 'x'; expected a whole number"),
        ("--seeds=1.5", "--seeds is '1.5'; expected a whole number"),
        ("--seeds", "--seeds is without a value; expected a whole number"),
        ("--seeds 1 2", "--seeds is '1 2'; expected a whole number"),
        (
            "--seeds 3 --train_size many",
            "--train_size is 'many'; expected a whole number",
        ),
        ("--pairs some", "--pairs is 'some'; expected all or adjacent"),
        ("--rate fast --seeds x", "--rate is 'fast'; expected a number"),
        ("--name", "--name is without a value; expected one name"),
        ("--output a b", "--output is 'a b'; expected one path"),
        ("--download yes", "--download is 'yes'; expected nothing after it"),
        ("--no-download", "--no-download is no option; expected --download"),
        ("--seed 3", "--seed is no option; expected --seeds"),
        ("--colour red", "--colour is no option; expected those of --help"),
        ("--rate 1 -x", "-x is no option; expected those of --help"),
        ("7 --seeds 3", "7 is no option; expected those of --help"),
    ],
)
def test_what_does_not_parse_is_one_line(argv, message, capsys):
    assert run(*argv.split(), main=pytest.fail) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    ("argv", "download"),
    [("", True), ("--download", True), ("--no-download", False), ("--seeds 2", True)],
)
def test_a_switch_that_is_on_may_be_given_again_or_turned_off(argv, download):
    seen = []
    given = {"main": seen.append, "defaults": lambda argv: Config(download=True)}
    assert run(*argv.split(), **given) == 0
    assert [config.download for config in seen] == [download]


@dataclass(frozen=True)
class On:
    """A switch that is on."""

    torch: bool = True


@pytest.mark.parametrize(
    ("argv", "torch"), [("", True), ("--torch", True), ("--no-torch", False)]
)
def test_so_may_one_that_is_on_for_everybody(argv, torch):
    assert command_line.parse(On, argv.split(), prog="x") == On(torch=torch)
    with pytest.raises(ValueError, match=r"^--no-torch is '3'; expected nothing after"):
        command_line.parse(On, ["--no-torch", "3"], prog="x")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--download --seeds x", "--seeds is 'x'; expected a whole number"),
        ("--no-download --rate x", "--rate is 'x'; expected a number"),
        ("--no-download no", "--no-download is 'no'; expected nothing after it"),
        ("--no-name", "--no-name is no option; expected --name"),
    ],
)
def test_what_is_wrong_is_told_from_the_defaults(argv, message, capsys):
    given = {"main": pytest.fail, "defaults": lambda argv: Config(download=True)}
    assert run(*argv.split(), **given) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize("module", [theory])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--seeds x", "--seeds is 'x'; expected a whole number"),
        ("--no-such-option", "--no-such-option is no option; expected those of --help"),
        ("--learning-rat 1", "--learning-rat is no option; expected --learning-rate"),
    ],
)
def test_both_commands_say_it_in_one_line(module, argv, message, capsys):
    code = command_line.run(module.main, module.Config, argv.split(), prog="python -m x")
    assert code == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


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


def test_other_errors_are_defects_and_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(main=raising(ZeroDivisionError()))


@pytest.mark.parametrize(("code", "left"), [(0, "by the door\n"), (2, ""), (130, "")])
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


def test_help_is_printed_and_nothing_run(capsys):
    description = "What it does.\n\n    python -m x\n\ndoes it,\nand well.\n\n* a\n* b\n"
    with pytest.raises(SystemExit, match="0"):
        run("--seeds", "x", "--help", main=pytest.fail, description=description)
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m x")
    assert "What it does.\n    python -m x\n\ndoes it, and well.\n* a\n* b\n" in out
    assert re.search(r"--output PATH +\(default: a new one\)", out)
    assert err == ""
