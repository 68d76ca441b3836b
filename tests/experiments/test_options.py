"""Options of a training run: what may not be, and where the defaults come from."""

import dataclasses
import json
import re

import pytest

from experiments.configs import configuration, given
from experiments.options import PLACES, Config
from experiments.run_folder import plain

OR_MORE = {
    "steps": (-1, 0),
    "seeds": (0, 1),
    "epochs": (0, 1),
    "batch_size": (0, 1),
    "image_size": (7, 8),
    "workers": (-1, 0),
    "checkpoint_minutes": (float("nan"), 0),
    "strength": (-0.5, 0),
    "weight_decay": (float("inf"), 0),
}
WRONG = [
    *((name, value, f"{least} or more") for name, (value, least) in OR_MORE.items()),
    ("width", 1e-12, "0.01 or more"),
    ("learning_rate", 0.0, "more than 0"),
    *(("width", 5000.0, "100 or less"), ("seeds", 10**12, "1000 or less")),
    ("image_size", 10**8, "10000 or less"),
    ("momentum", 1.0, "0 to less than 1"),
    ("label_smoothing", 1.0, "0 to less than 1"),
    ("validation", 1.0, "0 to less than 1"),
    ("strength", 5.0, "None with --method none, in which it has no effect"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_an_option_out_of_range_is_named(name, value, expected):
    flag = "--" + name.replace("_", "-")
    message = re.escape(f"{flag} is {value}; expected {expected}")
    with pytest.raises(ValueError, match=f"^{message}"):
        Config(**{name: value}).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"method": "paper-int"},
            "--method is 'paper-int'; expected one of those that --help lists, such as "
            "paper-init",
        ),
        ({"method": "paper-init", "strength": 0.0}, "--strength is 0.0; expected None"),
        ({"momentum": 0.5, "optimizer": "adamw"}, "--momentum is 0.5; expected 0.9 with"),
        ({"method": "muon", "optimizer": "adamw"}, "--optimizer is adamw; expected sgd"),
        (
            {"method": "muon", "momentum": 0.5},
            "--momentum is 0.5; expected 0.9 with --me",
        ),
        ({"workers": 1}, "--workers is 1; expected 2 with"),
        ({"distributed": True}, "--distributed is given without --output; expected a fo"),
        *(
            ({"milestones": epochs}, f"--milestones is '{epochs[0]} {epochs[1]}'; expect")
            for epochs in ((3, 2), (0, 2), (2, 2), (-3, 4))
        ),
    ],
)
def test_options_that_do_not_go_together_are_named(options, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        Config(**options).check()


def test_the_least_values_are_in_range():
    least = {name: bound for name, (_, bound) in OR_MORE.items()}
    del least["steps"]  # without effect on paper-reg
    least |= {"momentum": 0, "label_smoothing": 0, "validation": 0, "milestones": ()}
    Config(**least, method="paper-reg").check()
    Config(momentum=0.5, distributed=True, output="folder").check()


def test_milestones_that_are_never_reached_are_told():
    steps = {"schedule": "step", "milestones": (2, 3, 100), "epochs": 3}
    (warning,) = Config(**steps).warnings()
    assert warning.startswith("--milestones 2 3 100: not divided after the last epoch, 3")
    assert Config(**steps | {"milestones": (1, 2)}).warnings() == []
    (warning,) = Config(**steps | {"schedule": "constant"}).warnings()
    assert warning == "--milestones 2 3 100: no effect with --schedule constant"


def test_a_relative_dataset_is_stored_resolved(tmp_path, monkeypatch):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "digits" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for asked, stored in (
        ("photos", str(tmp_path / "photos")),
        ("./photos/", str(tmp_path / "photos")),
        ("digits", "digits"),
        ("cifar10", "cifar10"),
    ):
        assert Config(dataset=asked).options()["dataset"] == stored


def test_the_folder_of_a_run_repeats_it(tmp_path):
    config = Config(
        epochs=3, milestones=(1, 2), train_size=50, strength=0.5, output=tmp_path
    )
    about = {"options": plain(config.options()), "command": "any"}
    (tmp_path / "config.json").write_text(json.dumps(about))
    for name in (str(tmp_path), str(tmp_path / "config.json")):
        again = configuration(name)
        assert again.options() == config.options()
        assert again == dataclasses.replace(config, config=str(tmp_path), output=None)


OTHERS = "it has no options of a training run"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *((content, OTHERS) for content in ([], None, {"options": 3})),
        ({"options": {"speed": 1}}, OTHERS),
        ({"options": {PLACES[0]: None}}, OTHERS),
        *(
            ({"options": {name: value}}, f"{name} is {json.dumps(value)}")
            for name, value in [
                *(("milestones", 3), ("milestones", [3, 4.5]), ("epochs", "three")),
                *(("epochs", None), ("width", "1"), ("strength", [])),
                *(("schedule", "linear"), ("augment", 1), ("model", 3)),
            ]
        ),
    ],
    ids=str,
)
def test_a_folder_of_something_else_is_named(tmp_path, content, said):
    (tmp_path / "config.json").write_text(json.dumps(content))
    expected = re.escape(f"{tmp_path / 'config.json'} is damaged: {said}")
    with pytest.raises(ValueError, match=f"^{expected}"):
        configuration(str(tmp_path))


def test_the_last_of_two_configurations_counts():
    assert given(["--config", "digits", "--seeds", "2", "--config=cifar10_cnn"]) == (
        "cifar10_cnn"
    )
    assert given(["--seeds", "2", "--config"]) == ""
    assert given([]) == "digits"


def test_an_unknown_configuration_is_named_with_what_is_close():
    expected = "--config is 'digit'; expected digits.*, or the folder of a run"
    with pytest.raises(ValueError, match=expected):
        configuration("digit")
