"""Plots and pictures of the run report: of the numbers that they are given."""

import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color

from experiments.record import read_kernels, read_run
from experiments.report import charts, pictures
from experiments.report.charts import Line
from tests.experiments.report.run_report_case import make_run


def kernel(*filters):
    """`(2, 2, 1, M)` of filters given as four weights."""
    return np.array(filters, float).T.reshape(2, 2, 1, -1)


def test_a_filter_is_grey_at_zero_and_white_or_black_at_its_largest_weight():
    image = pictures.tiles(kernel([0, 1, -2, 2], [0, 0, 0, -5], [0, 0, 0, 0]))
    assert image.shape == (2, 8, 4)  # three filters of two, two gaps
    np.testing.assert_array_equal(image[:, :2, 0], [[128, 191], [0, 255]])
    np.testing.assert_array_equal(image[:, 3:5, 1], [[128, 128], [128, 0]])
    np.testing.assert_array_equal(image[:, 6:8, 2], 128)
    np.testing.assert_array_equal(image[0, :, 3], [255, 255, 0, 255, 255, 0, 255, 255])


@pytest.mark.parametrize(
    ("weights", "pixel"), [([1, -1, 0], [255, 0, 128]), ([1, -4], [255, 255, 255])]
)
def test_three_channels_are_colours_and_of_others_the_first_is_seen(weights, pixel):
    image = pictures.tiles(np.reshape(np.array(weights, float), (1, 1, -1, 1)))
    np.testing.assert_array_equal(image, [[[*pixel, 255]]])


def test_filters_fill_rows_of_eight():
    image = pictures.tiles(np.ones((3, 3, 1, 9)))
    assert image.shape == (3 + 1 + 3, 8 * 4 - 1, 4)
    assert (image[4:, :3, 3] == 255).all() and (image[4:, 3:, 3] == 0).all()
    assert pictures.tiles(np.ones((3, 3, 1, 100))).shape == (8 * 4 - 1, 8 * 4 - 1, 4)


def test_similar_kernels_are_bright_and_the_first_are_shown():
    weights = np.random.default_rng(0).normal(size=(3, 3, 2, 70)).astype(np.float32)
    weights[..., 1] = -3 * weights[..., 0]  # scale-free: as alike as can be
    image = pictures.similarities(weights)
    assert image.shape == (64, 64, 4)
    brightest = matplotlib.colormaps["magma"](1.0, bytes=True)
    np.testing.assert_array_equal(image[0, :2], [brightest, brightest])
    assert image[0, 2, :3].sum() < image[0, 0, :3].sum()


def test_kernels_that_say_nothing_are_left_out(tmp_path):
    shapes = {
        "One/kernel": (1, 1, 3, 4),  # a kernel of one tap is as alike as can be
        "Gone/kernel": (3, 3, 3, 4),
        "Lost/kernel": (3, 3, 3, 4),
        "Seen/kernel": (3, 3, 3, 4),
        "Single/kernel": (3, 3, 3, 1),
    }
    run = read_run(make_run(tmp_path / "run", seeds=1, epochs=1, shapes=shapes))
    arrays = read_kernels(run.folder)
    arrays["end/Gone/kernel"][0, 0, 0, 0] = np.nan
    del arrays["start/Lost/kernel"]
    np.savez(run.folder / "kernels.npz", **arrays)
    assert [picture.layer for picture in pictures.filters(run)] == ["Seen"]
    assert [picture.layer for picture in pictures.matrices(run)] == ["Seen"]
    (run.folder / "kernels.npz").write_bytes(b"PK")
    assert pictures.filters(run) == pictures.matrices(run) == []


def line(*values, finished=None, **about):
    """Seeds' values by epoch, from epoch 0 on."""
    values = np.array(values, float).reshape(len(values), -1)
    finished = np.ones(values.shape[1], bool) if finished is None else finished
    return Line("a", np.arange(len(values)), values, np.array(finished), **about)


@pytest.fixture
def drawn(monkeypatch):
    """Draws a chart; its axes, as they were before they became an SVG."""

    def draw(make, given):
        figures = []
        monkeypatch.setattr(charts, "svg", lambda figure, name: figures.append(figure))
        chart = make("A quantity", given)
        (axes,) = figures[0].axes
        lines = [line for line in axes.lines if len(line.get_ydata())]
        return chart, axes, lines

    return draw


def test_curves_are_the_seeds_and_the_mean_of_those_that_finished(drawn):
    of = line([1.0, 3.0, 9.0], [2.0, 5.0, np.nan], finished=[True, True, False])
    chart, axes, lines = drawn(charts.curves, [of])
    assert [line.get_linestyle() for line in lines] == ["-", "-", ":", "-"]
    np.testing.assert_array_equal([line.get_ydata() for line in lines[:3]], of.values.T)
    np.testing.assert_array_equal(lines[3].get_ydata(), [2.0, 3.5])
    low, high = axes.get_ylim()
    assert 0 < low < 1 and 5 < high < 6  # the seed that left is not what it fits
    assert chart.description == "A quantity: a 2.00 in epoch 0 and 3.50 in epoch 1."


def test_the_chosen_epoch_is_marked_in_the_colour_of_its_run(drawn):
    one = line([5.0, 1.0, 0.0], [7.0, 2.0, 0.0], [6.0, 3.0, 0.0],
               finished=[True, True, False], chosen=np.array([1, 2, 2]))  # fmt: skip
    *_, lines = drawn(charts.curves, [line([np.nan], [np.nan]), one])
    assert sorted(lines[-1].get_ydata()) == [3.0, 7.0]
    known = [line for line in lines if np.isfinite(line.get_ydata()).any()]
    # Though the first has nothing.
    assert known and all(same_color(line.get_color(), "C1") for line in known)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 1000], "log"), ([1, 9], "linear"), ([0, 1000], "linear"), ([5, 5], "linear")],
)
def test_a_wide_span_takes_a_logarithmic_axis_and_says_so(
    drawn, monkeypatch, values, scale
):
    monkeypatch.setattr(charts, "LOGARITHMIC", ["A quantity"])
    chart, axes, _ = drawn(charts.curves, [line(*values)])
    assert axes.get_yscale() == scale
    assert ("(logarithmic axis)" in chart.title) == (scale == "log")
    low, high = axes.get_ylim()
    assert low < min(values) and high > max(values)


@pytest.mark.parametrize("layers", [1, 53])
def test_a_bar_a_layer(drawn, layers):
    start, end = np.linspace(0.2, 0.9, layers), np.linspace(0.1, 0.5, layers)
    chart, axes, _ = drawn(charts.bars, {charts.BEFORE: start, "after": end})
    hollow, filled = axes.containers
    for container, values, side in ((hollow, start, -0.2), (filled, end, 0.2)):
        centers = [bar.get_x() + bar.get_width() / 2 for bar in container]
        np.testing.assert_allclose(centers, np.arange(1, layers + 1) + side)
        np.testing.assert_array_equal([bar.get_height() for bar in container], values)
    assert not hollow[0].get_fill() and filled[0].get_fill()
    assert axes.get_ylim() == (0, 1)
    assert f"mean of {layers} conv layers: before training 0." in chart.description


def test_an_svg_takes_the_colour_and_the_font_of_the_page():
    before = dict(matplotlib.rcParams)
    image = charts.curves("a name", [line(0.5, 0.4), line(0.1, 0.2)]).image
    assert ElementTree.fromstring(image).tag.endswith("svg")
    assert charts.INK not in image and "currentColor" in image
    assert "DejaVu" not in image and "system-ui, sans-serif" in image
    assert image.count(">a<") == 2  # the legend
    assert dict(matplotlib.rcParams) == before
    again = charts.curves("a name", [line(0.5, 0.4), line(0.1, 0.2)]).image
    assert image == again != charts.curves("another", [line(0.5, 0.4)]).image
