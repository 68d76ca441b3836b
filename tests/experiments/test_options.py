"""Options of a training run: what may not be, and where the defaults come from."""

import dataclasses
import json
import re

import pytest

from experiments import command_line
from experiments.configs import configuration, given, names
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
    *({name: value} | {"expected": f"{least} or more"} for name, (value, least) in
      OR_MORE.items()),
    {"learning_rate": 0.0, "expected": "more than 0"},
    {"width": 1e-12, "expected": "0.01 or more"},
    {"width": 5000.0, "expected": "100 or less"},
    {"seeds": 10**12, "expected": "1000 or less"},
    {"image_size": 10**8, "expected": "10000 or less"},
    *({name: 1.0, "expected": "0 to less than 1"} for name in
      ("momentum", "label_smoothing", "validation")),
    *({"milestones": epochs, "expected": "epochs, 1 or more, in rising order",
       "came": repr(" ".join(map(str, epochs)))} for epochs in
      ((3, 2), (0, 2), (2, 2), (-3, 4))),
    {"strength": 5.0, "expected": "None with --method none, in which it has no effect"},
    {"strength": 0.0, "method": "paper-init", "expected": "None with --method paper-i"},
    {"method": "magic", "expected": "none, paper",
     "came": "'magic' is no intervention"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_an_option_out_of_range_is_named(wrong):
    (name, value), *_ = wrong.items()
    came = wrong.get("came", value)
    flag = "--" + name.replace("_", "-")
    message = re.escape(f"{flag} is {came}; expected {wrong['expected']}")
    method = wrong.get("method", "none")
    with pytest.raises(ValueError, match=f"^{message}"):
        Config(**{"method": method, name: value}).check()


def test_the_least_values_are_in_range():
    least = {name: bound for name, (_, bound) in OR_MORE.items()}
    del least["steps"]  # without effect on paper-reg
    least |= {"momentum": 0, "label_smoothing": 0, "validation": 0, "milestones": ()}
    Config(**least, method="paper-reg").check()


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


@pytest.mark.parametrize("name", names())
def test_every_configuration_is_in_range_and_knows_its_name(name):
    config = configuration(name)
    config.check()
    assert config.config == name


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


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], None, 3, {"options": 3}, {"options": {"speed": 1}}),
        *({"options": {place: None}} for place in PLACES),
    ],
    ids=str,
)
def test_a_folder_without_the_options_of_a_run_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(json.dumps(content))
    expected = re.escape(
        f"{tmp_path / 'config.json'} is damaged: it has no options of a training run"
    )
    with pytest.raises(ValueError, match=expected):
        configuration(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("milestones", None, "null"),
        ("milestones", 3, "3"),
        ("milestones", [3, 4.5], "[3, 4.5]"),
        ("epochs", "three", '"three"'),
        ("epochs", None, "null"),
        ("epochs", True, "true"),
        ("width", "1", '"1"'),
        ("strength", [], "[]"),
        ("schedule", "linear", '"linear"'),
        ("schedule", [], "[]"),
        ("pairs", None, "null"),
        ("augment", 1, "1"),
        ("model", 3, "3"),
    ],
)
def test_a_folder_with_a_value_of_another_kind_is_named(tmp_path, name, value, said):
    options = plain(Config().options()) | {name: value}
    (tmp_path / "config.json").write_text(json.dumps({"options": options}))
    expected = f"{tmp_path / 'config.json'} is damaged: {name} is {said}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        configuration(str(tmp_path))


def test_the_last_of_two_configurations_counts():
    assert given(["--config", "digits", "--seeds", "2", "--config=cifar10_cnn"]) == (
        "cifar10_cnn"
    )
    assert given(["--seeds", "2", "--config"]) == ""
    assert given([]) == "digits"


def test_the_help_says_which_networks_there_are_besides_those_named(capsys):
    with pytest.raises(SystemExit):
        command_line.parse(Config, ["--help"])
    assert "wrn<depth>-<factor>" in capsys.readouterr().out


def test_an_unknown_configuration_is_named_with_what_is_close():
    expected = "--config is 'digit'; expected digits.*, or the folder of a run"
    with pytest.raises(ValueError, match=expected):
        configuration("digit")
