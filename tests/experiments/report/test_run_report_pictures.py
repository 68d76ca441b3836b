"""Plots and pictures of the run report: of the numbers that they are given."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from experiments.record import read_kernels, read_run
from experiments.report import charts, pictures, plots
from experiments.report.plots import Curve
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


def test_three_channels_are_red_green_and_blue():
    weights = np.zeros((1, 1, 3, 1))
    weights[0, 0, :, 0] = [1, -1, 0]
    np.testing.assert_array_equal(pictures.tiles(weights), [[[255, 0, 128, 255]]])


def test_of_other_numbers_of_channels_the_first_is_seen():
    weights = np.zeros((1, 1, 2, 1))
    weights[0, 0, :, 0] = [1, -4]
    np.testing.assert_array_equal(pictures.tiles(weights), [[[255, 255, 255, 255]]])


def test_filters_fill_rows_of_eight():
    image = pictures.tiles(np.ones((3, 3, 1, 9)))
    assert image.shape == (3 + 1 + 3, 8 * 4 - 1, 4)
    assert (image[4:, :3, 3] == 255).all() and (image[4:, 3:, 3] == 0).all()
    assert pictures.tiles(np.ones((3, 3, 1, 100))).shape == (8 * 4 - 1, 8 * 4 - 1, 4)


def test_a_matrix_is_of_the_first_kernels():
    weights = np.random.default_rng(0).normal(size=(3, 3, 2, 70)).astype(np.float32)
    weights[..., 1] = -3 * weights[..., 0]  # scale-free: as alike as can be
    matrix = pictures.matrix(weights)
    assert matrix.shape == (64, 64)
    np.testing.assert_allclose(matrix[0, :2], 1, atol=1e-6)
    assert matrix[0, 2] < 0.99


def test_an_image_is_the_same_inside_its_address():
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    head, content = pictures.data_uri(image).split(",")
    assert head == "data:image/png;base64"
    again = Image.open(io.BytesIO(base64.b64decode(content)))
    np.testing.assert_array_equal(np.asarray(again), image)


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
    assert pictures.filters(run).layer == "Seen"
    assert [picture.layer for picture in pictures.matrices(run)] == ["Seen"]
    (run.folder / "kernels.npz").write_bytes(b"PK")
    assert pictures.filters(run) is None and pictures.matrices(run) == []


def drawn(figure):
    """The lines with data, as colour, style and points."""
    (axes,) = figure.axes
    return [
        (line.get_color(), line.get_linestyle(), line.get_ydata())
        for line in axes.lines
        if len(line.get_ydata())
    ]


def test_curves_are_the_seeds_and_the_mean_of_those_that_finished():
    values = np.array([[1.0, 3.0, 9.0], [2.0, 5.0, np.nan]])
    finished = np.array([True, True, False])
    figure = plots.curves(np.array([0, 1]), [Curve("loss", values)], finished)
    lines = drawn(figure)
    assert [style for _, style, _ in lines] == ["-", "-", ":", "-"]
    np.testing.assert_array_equal([y for *_, y in lines[:3]], values.T)
    np.testing.assert_array_equal(lines[3][2], [2.0, 3.5])
    low, high = figure.axes[0].get_ylim()
    assert 0 < low < 1 and 5 < high < 6  # the seed that left is not what it fits


def test_the_chosen_epoch_is_marked_on_the_last_curve():
    train, validation = np.array([[1.0], [2.0]]), np.array([[5.0], [7.0]])
    figure = plots.curves(
        np.array([1, 2]),
        [Curve("training", train), Curve("validation", validation)],
        np.array([True]),
        chosen=np.array([2.0]),
    )
    colour, _, y = drawn(figure)[-1]
    assert colour == plots.SECOND and list(y) == [7.0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 1000], "log"), ([1, 9], "linear"), ([0, 1000], "linear"), ([5, 5], "linear")],
)
def test_a_wide_span_takes_a_logarithmic_axis(values, scale):
    curve = Curve("loss", np.array(values, float)[:, None])
    figure = plots.curves(np.array([0, 1]), [curve], np.array([True]), logarithmic=True)
    assert figure.axes[0].get_yscale() == scale
    low, high = figure.axes[0].get_ylim()
    assert low < min(values) and high > max(values)


@pytest.mark.parametrize("layers", [1, 3, 53])
def test_every_layer_stands_at_its_number(layers):
    start, end = np.linspace(0.2, 0.9, layers), np.linspace(0.1, 0.5, layers)
    figure = plots.layers(start, end)
    (axes,) = figure.axes
    hollow, filled = axes.lines
    np.testing.assert_array_equal(hollow.get_xdata(), np.arange(1, layers + 1))
    np.testing.assert_array_equal(hollow.get_ydata(), start)
    np.testing.assert_array_equal(filled.get_ydata(), end)
    assert hollow.get_markerfacecolor() == "none"
    ticks = [tick for tick in axes.get_xticks() if 1 <= tick <= layers]
    assert ticks and all(tick == int(tick) for tick in ticks)


def test_an_svg_takes_the_colours_and_the_font_of_the_page():
    before = dict(matplotlib.rcParams)
    both = [Curve(name, np.array([[0.5], [0.4]])) for name in ("a", "b")]
    figure = plots.curves(np.array([0, 1]), both, np.array([True]))
    element = plots.svg(figure, "a name")
    assert ElementTree.fromstring(element).tag.endswith("svg")
    for colour, name in plots.COLOURS.items():
        assert colour not in element and f"var(--{name})" in element
    assert "DejaVu" not in element and "system-ui, sans-serif" in element
    assert dict(matplotlib.rcParams) == before
    assert element == plots.svg(figure, "a name") != plots.svg(figure, "another")


def test_a_quantity_that_is_not_known_has_no_chart(tmp_path):
    run = read_run(make_run(tmp_path / "run", seeds=1, epochs=2, validation=False))
    history = [epoch._replace(norm=np.array([np.nan])) for epoch in run.history]
    titles = [chart.title for chart in charts.curves(run._replace(history=history))]
    assert titles == [
        "Loss",
        "Accuracy, %",
        "Learning rate",
        "Scale-free similarity of the kernels",
        "The paper's loss",
    ]
