"""What a run says of itself while it goes on."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from experiments.progress import display, stderr
from experiments.record import Epoch


def epoch(**values):
    return Epoch(**dict.fromkeys(Epoch._fields, np.array([np.nan, np.nan])) | values)


def said(tell, epochs=2, **options):
    """By a display of epochs of 10 steps, when it is gone."""
    file = io.StringIO()
    console = Console(file=file, **{"width": 200, "force_terminal": True} | options)
    with display(console, epochs, 10) as shown:
        tell(shown)
    text = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", file.getvalue())
    return [line.split("\r")[-1].rstrip() for line in text.strip().split("\n")]


def in_programs_of_40_seconds(accuracy=(93.25, 93.15), **options):
    """What is said in the third of 5 programs that take half an epoch each."""
    now = [0.0]
    done = epoch(
        epoch=150,
        loss=np.array([1, 3]),
        accuracy=np.array(accuracy),
        scale_free_loss=np.array([0.123, np.nan]),
        images_per_second=2345.6,
    )

    def tell(shown):
        shown.close(epoch(epoch=0))
        for number in range(1, 4):
            now[0] += 40
            shown.reach(150 + number // 3, 10 if number == 2 else 5, 1.2345, 12345.6)
            if number == 2:
                shown.close(done)

    return said(tell, 152, get_time=lambda: now[0], **options)


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [([50, np.nan], ["accuracy 50.0 %"]), ([np.nan, np.nan], [])],  # without validation
)
def test_figures_of_this_epoch_and_of_the_seeds_that_go_on(accuracy, expected):
    (line,) = in_programs_of_40_seconds(accuracy)
    figures = line[line.index("loss") :].split("  ")
    known = ["loss 1.234", *expected, "summed scale-free loss 0.123", "12,346 img/s"]
    assert figures == known


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_time_left_comes_with_the_second_program_and_is_never_squeezed(width):
    (line,) = in_programs_of_40_seconds(width=width)
    bar = r" \S{8}" if width == 200 else ""
    assert re.match(rf"epoch 151/152{bar} 0:02:00 loss 1\.234  accura", line)
    assert len(line) <= width
    assert ("accuracy 93.2 %  summed scale" in line) == (width >= 80)


def test_without_a_terminal_it_is_a_line_an_epoch_however_long():
    lines = in_programs_of_40_seconds(force_terminal=False, width=60)
    assert lines == [
        "epoch 150/152  loss 2.000  accuracy 93.2 %  summed scale-free loss 0.123  "
        "2,346 img/s  0:02:40 left"
    ]


def test_a_file_is_no_terminal_and_warnings_stand_above(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with display(stderr(), 2, 10) as shown:
        shown.warn("a checkpoint is damaged")
        shown.close(epoch(epoch=1, loss=np.array([0.5]), images_per_second=10.0))
    warning, line = capfd.readouterr().err.splitlines()
    assert warning == "warning: a checkpoint is damaged"
    assert line.startswith("epoch 1/2  loss 0.500") and "\x1b" not in line


def test_no_time_is_left_after_the_last_epoch():
    done = epoch(epoch=2, loss=np.array([0.5]), images_per_second=10.0)
    (line,) = said(lambda shown: shown.close(done), force_terminal=False)
    assert line.endswith("10 img/s")
