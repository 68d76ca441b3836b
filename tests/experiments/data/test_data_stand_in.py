"""The stand-in for ImageNet."""

import numpy as np
import pytest

from experiments import command_line
from experiments.data.open import open_source
from experiments.data.stand_in import COMMAND, Config, main

SMALL = [
    "--train",
    "24",
    "--test",
    "12",
    "--classes",
    "4",
    "--shortest",
    "20",
    "--longest",
    "40",
]


def run(*argv):
    return command_line.run(main, Config, list(map(str, argv)), prog=COMMAND)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "parent" / "small"
    assert run(path, *SMALL) == 0
    return path


def test_it_is_an_image_folder_of_several_sizes(folder):
    source = open_source(str(folder))
    assert source.sizes == {"train": 24, "test": 12} and source.classes == 4
    assert source.shape == (None, None, 3)
    sizes = {size for i in range(24) for size in source.examples("train")[i][0].shape[:2]}
    assert len(sizes) > 5 and min(sizes) >= 20 and max(sizes) <= 40
    labels = [source.examples("test")[i][1] for i in range(12)]
    assert np.bincount(labels).tolist() == [3, 3, 3, 3]
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_labels_can_be_told_from_the_images(folder):
    source = open_source(str(folder))

    def means(split):
        examples = source.examples(split)
        pairs = [examples[i] for i in range(len(examples))]
        colours = np.array([image.mean((0, 1)) for image, _ in pairs])
        colours -= colours.mean(axis=1, keepdims=True)
        return colours, np.array([label for _, label in pairs])

    train, labels = means("train")
    centres = np.stack([train[labels == label].mean(axis=0) for label in range(4)])
    test, expected = means("test")
    guesses = ((test[:, None] - centres) ** 2).sum(-1).argmin(axis=1)
    assert (guesses == expected).mean() > 0.6  # by chance 0.25


def test_the_same_options_make_the_same_files_and_another_seed_others(folder, tmp_path):
    assert run(tmp_path / "again", *SMALL) == 0
    assert run(tmp_path / "other", *SMALL, "--seed", 1) == 0
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.jpg"))
    contents, again, other = (
        [(root / file).read_bytes() for file in files]
        for root in (folder, tmp_path / "again", tmp_path / "other")
    )
    assert len(set(contents)) == 36 and contents == again
    assert not set(contents) & set(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", 1], "--classes is 1; expected 2 or more"),
        (["--train", 3], "--train is 3; expected 10 or more"),
        (["--test", 9], "--test is 9; expected 10 or more"),
        (["--shortest", 7], "--shortest is 7; expected 8 or more"),
        (["--longest", 249], "--longest is 249; expected 250 or more"),
        (["--seed", -1], "--seed is -1; expected 0 or more"),
        (["--train", "many"], "--train: invalid literal for int() with base 10: 'many'"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(tmp_path, capsys, options, message):
    assert run(tmp_path / "new", *options) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_files_is_left_as_it_is(folder, capsys, tmp_path):
    assert run(folder) == 2
    message = f"error: {folder} is not empty; expected a new folder\n"
    assert capsys.readouterr().err == message
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "new") == 2
    assert capsys.readouterr().err.count("\n") == 1
