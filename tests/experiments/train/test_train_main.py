"""The command: what it does with the folder of an earlier run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.options import Config
from experiments.train.__main__ import main
from tests.experiments.data.data_cases import examples, write_folder

CONFIG = Config(
    train_size=16,
    validation=0.01,
    model="cnn-plain",
    width=0.1,
    method="paper-reg",
    epochs=1,
    batch_size=8,
    schedule="constant",
)


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(replace(CONFIG, output=folder)) == 0
    return folder


def test_a_finished_run_goes_on_with_more_epochs(finished, tmp_path):
    longer = replace(CONFIG, epochs=2)
    with np.load(finished / "kernels.npz") as arrays:
        before = dict(arrays)
    main(replace(longer, output=finished))
    main(replace(longer, output=tmp_path / "at once"))
    for name in ("results.json", "history.json"):
        ours, theirs = (read(path, name) for path in (finished, tmp_path / "at once"))
        for row in (*ours, *theirs) if isinstance(ours, list) else (ours, theirs):
            row.pop("seconds", None)
            row.pop("images_per_second", None)
        assert ours == theirs
    assert read(finished, "config.json")["options"]["epochs"] == 2
    (finished / "kernels.npz").write_bytes(b"damaged")
    main(replace(longer, output=finished))
    with np.load(finished / "kernels.npz") as arrays:
        for name in before:
            same = np.array_equal(arrays[name], before[name])
            assert same == name.startswith("start/")
    with pytest.raises(ValueError, match="--epochs is 1, and was 2"):
        main(replace(CONFIG, output=finished))


def test_strength_and_data_are_noted(finished):
    settled = read(finished, "config.json")["settled"]
    assert settled["strength"] == 1e-3
    assert settled["dataset"]["class_names"] == [str(digit) for digit in range(10)]


def test_widths_from_a_run_are_those_that_it_has_effective(finished, tmp_path):
    maps = read(finished, "results.json")["end"]["effective_before"]
    expected = np.ceil(np.mean(maps, axis=0)).astype(int).tolist()
    assert main(replace(CONFIG, width=1.0, widths_from=finished, output=tmp_path)) == 0
    with np.load(tmp_path / "kernels.npz") as arrays:
        widths = [arrays[f"end/Conv_{place}/kernel"].shape[-1] for place in range(3)]
    assert widths == expected


def test_a_run_whose_images_changed_is_refused(tmp_path):
    images, folder = tmp_path / "images", tmp_path / "run"
    pictures, _ = examples(8)
    files = {
        f"{split}/{label}/{i}.png": picture
        for split in ("train", "test")
        for label in ("cat", "dog")
        for i, picture in enumerate(pictures)
    }
    write_folder(images, files)
    config = replace(CONFIG, dataset=str(images), train_size=None)
    config = replace(config, validation=0.0, image_size=8, workers=0, output=folder)
    main(config)
    next((images / "train").rglob("*.png")).unlink()
    with pytest.raises(ValueError, match="dataset"):
        main(config)


def test_every_seed_diverged_is_an_exit_code(tmp_path, capsys):
    assert main(replace(CONFIG, learning_rate=1e30, output=tmp_path / "run")) == 2
    assert "--learning-rate" in capsys.readouterr().err
    assert "diverged" in (tmp_path / "run" / "report.html").read_text()
