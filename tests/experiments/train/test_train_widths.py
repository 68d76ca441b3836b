"""Networks as wide as a trained one has effective maps."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import build
from experiments.options import Config
from experiments.run_folder import read_json
from experiments.train.widths import effective_widths, settled_widths
from tests.experiments.report.run_report_case import make_run


def test_widths_are_the_means_of_the_seeds_that_finished_rounded_up(tmp_path):
    run = make_run(tmp_path, effective=True, diverged_at={1: 3})
    maps = read_json(run / "results.json")["end"]["effective_before"]
    expected = np.ceil((np.array(maps[0]) + np.array(maps[2])) / 2)
    assert effective_widths(run) == tuple(expected)
    config = settled_widths(Config(widths_from=run, epochs=7))
    assert config == Config(widths=tuple(expected), epochs=7)
    assert settled_widths(config) is config
    for other in (Config(width=0.5, epochs=7), Config(widths=(3, 4, 5), epochs=7)):
        assert settled_widths(dataclasses.replace(other, widths_from=run)) == config


def test_a_run_that_cannot_say_is_named(tmp_path):
    earlier = make_run(tmp_path / "earlier")
    diverged = make_run(
        tmp_path / "gone", effective=True, diverged_at=dict.fromkeys(range(3), 2)
    )
    going = make_run(tmp_path / "going", effective=True)
    (going / "results.json").unlink()
    for folder in (earlier, diverged, going, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"--widths-from is {folder}"):
            effective_widths(folder)


@pytest.mark.parametrize(
    ("name", "widths"), [("cnn", (3, 5, 2)), ("vgg19", tuple(range(2, 18)))]
)
def test_a_network_has_those_widths(name, widths):
    model = build(name, classes=4, widths=widths)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    kernels = [params[f"Conv_{place}"]["kernel"].shape for place in range(len(widths))]
    assert [shape[-1] for shape in kernels] == list(widths)
    assert [shape[-2] for shape in kernels] == [3, *widths[:-1]]


def test_widths_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="--widths is given with --model resnet18"):
        build("resnet18", classes=4, widths=(3, 4))
    model = build("cnn", classes=4, widths=(3, 4))
    with pytest.raises(ValueError, match="--widths is 3 4; expected 3 numbers"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    for config in (Config(widths=(3, 0, 4)), Config(widths=(3, 4, 5), width=0.5)):
        with pytest.raises(ValueError, match="--widths is"):
            config.check()


def test_a_run_without_widths_does_not_name_them():
    """So that the folders of earlier versions are still those of the same options."""
    assert "widths" not in Config().options()
    options = dataclasses.replace(Config(), widths=(3, 4, 5)).options()
    assert json.loads(json.dumps(options))["widths"] == [3, 4, 5]
    assert "widths_from" not in options
