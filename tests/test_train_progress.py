"""What a run says of itself while it goes on."""

import io

import numpy as np
from rich.console import Console

from experiments.train.progress import display
from experiments.train.record import Epoch


def epoch(**values):
    return Epoch(**dict.fromkeys(Epoch._fields, np.array([np.nan, np.nan])) | values)


def said(tell):
    """By a display of 2 epochs of 10 steps, when it is gone."""
    file = io.StringIO()
    with display(Console(file=file, width=200), 2, 10) as shown:
        tell(shown)
    text = file.getvalue().replace(" -:--:-- ", "  ")  # the time left, of which
    return [line.split("  ") for line in text.splitlines()]  # one step tells nothing


def test_epoch_loss_and_images_a_second():
    (line,) = said(lambda shown: shown.reach(1, 5, 0.1234, 12345.6))
    assert line[0].startswith("epoch 1/2 ")
    assert line[-2:] == ["loss 0.123", "12,346 images/s"]


def test_of_the_last_epoch_accuracy_and_similarity_of_the_seeds_that_go_on():
    row = epoch(accuracy=np.array([50, np.nan]), scale_free_loss=np.array([1.5, np.nan]))

    def tell(shown):
        shown.close(row)
        shown.reach(2, 1, 0.5, 10.0)

    (line,) = said(tell)
    assert line[0].startswith("epoch 2/2 ")
    assert line[-4:] == [
        "loss 0.500",
        "accuracy 50.0 %",
        "similarity 1.500",
        "10 images/s",
    ]


def test_without_images_to_validate_no_accuracy():
    row = epoch(scale_free_loss=np.array([1.0, 2.0]))

    def tell(shown):
        shown.close(row)
        shown.reach(2, 1, 0.5, 10.0)

    (line,) = said(tell)
    assert line[-3:] == ["loss 0.500", "similarity 1.500", "10 images/s"]


def test_warnings_stand_above_what_goes_on():
    def tell(shown):
        shown.say("measuring")
        shown.warn("a checkpoint is damaged")

    warning, line = said(tell)
    assert warning == ["warning: a checkpoint is damaged"]
    assert line[0].startswith("measuring")
