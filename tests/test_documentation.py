"""The Python on README and pages runs, and prints what stands there as its output.

Blocks of one page share their names. A block marked `output` is what the Python since the
last such block prints; numbers may differ by a hundredth.
"""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|output)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_runs_and_prints_what_it_says(page, relaxed_jax):
    names: dict = {}
    printed = io.StringIO()
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(text, page.name, "exec"), names)
        else:
            assert_same_text(printed.getvalue(), text)
            printed = io.StringIO()


def assert_same_text(printed, expected):
    words = (" ".join(NUMBER.sub("0", text).split()) for text in (printed, expected))
    assert next(words) == next(words), printed
    numbers = ([*map(float, NUMBER.findall(text))] for text in (printed, expected))
    assert next(numbers) == pytest.approx(next(numbers), rel=0.01, abs=0.001), printed
