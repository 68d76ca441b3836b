"""The table and the plots, of made-up outcomes."""

import csv
import io
import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.compare import plots, table
from experiments.compare.settings import DEMO, SETTINGS
from experiments.compare.statistics import findings
from experiments.interventions import INTERVENTIONS
from tests.experiments.compare.outcomes import BASE, NAN, final, outcomes_of, trial_of


@pytest.fixture
def three():
    """The baseline, one that is better in one seed, and one that diverged."""
    gone = {trial_of("paper-reg"): final([NAN] * 3, [[30, NAN]] * 3, kernels=True)}
    better = {
        trial_of("paper-init"): final([80, NAN, 81], [[70, 80], [70, NAN], [70, 81]])
    }
    base = {trial_of("none"): final([60, 61, 64], [[50, 60], [51, 61], [52, 64]])}
    return findings(base | better | gone)


def cells(text, name):
    """Of the first line that begins with a name, and blanks after it."""
    line = next(line for line in text.splitlines() if line.startswith(f"{name}  "))
    return re.split(r"  +", line)


def test_the_table_shows_the_arithmetic_of_the_rows():
    better = np.add(BASE, [3, 2, 3, 2, 2]).tolist()
    found = findings(outcomes_of(none=BASE, paper_init=better))
    text = table.table(found, tuned=True, width=500)
    row = cells(text, "paper-init")
    # 2.776 standard errors; steps of 10 are the least that are tried.
    assert row[1:5] == ["10, end", "0.02", "62.90 ± 0.92", "+2.40 ± 0.68 *"]
    assert cells(text, "none")[1:3] == ["0.02", "60.50 ± 1.39"]
    assert text.index("paper-init ") < text.index("none ")  # the largest gain first
    plain = table.table(found)
    assert plain.index("none  ") < plain.index("paper-init  ")
    assert "0.550 → 0.300" in plain and "0.25 → 0.25" in plain and "5 → 5" in plain


def test_what_is_too_wide_goes_into_more_tables():
    found = findings(outcomes_of(none=BASE, paper_init=BASE))
    wide, narrow = (table.table(found, width=width) for width in (500, 60))
    assert max(map(len, narrow.splitlines())) <= 60 < max(map(len, wide.splitlines()))
    assert wide.count("paper-init") == 1 < narrow.count("paper-init")
    # Nothing is lost, and nothing added but rules and names.
    assert {*wide.split()} == {x for x in narrow.split() if not x.startswith("─")} | {
        next(x for x in wide.split() if x.startswith("─"))
    }


def test_what_diverged_is_told(three):
    text = table.table(three)
    assert text.splitlines()[-2:] == [
        "paper-init: 1 of 3 seeds diverged at epoch 3; its row is of the others",
        "paper-reg: 3 of 3 seeds diverged at epoch 3",
    ]
    assert set(cells(text, "paper-reg")[1:-2]) <= {"-", ""}
    assert "nan" not in text
    assert list(three) != table.by_gain(three)
    assert table.by_gain(three)[-1] == "paper-reg"


def test_other_scores_are_the_baselines_and_differences_from_it():
    outcomes = outcomes_of(none=BASE, paper_init=BASE)
    for trial, outcome in outcomes.items():
        more = 3.0 * (trial.method == "paper-init")
        outcome.scores[:] = [
            row._replace(noise=40 + more * row.seed) for row in outcome.scores
        ]
    text = table.table(findings(outcomes), tuned=True, width=500)
    assert "40.00 ± 0.00" in cells(text, "none")
    assert "+6.00 ± 5.89 *" in cells(text, "paper-init")
    assert "under noise" in text and "under blur" not in text
    assert "under noise" not in table.table(findings(outcomes))  # of fixed strengths


def test_how_many_seeds_reach_the_target_is_told_in_both_columns():
    base = {trial_of("none"): final([40] * 3, [[10, 20, 30, 40]] * 3)}
    slow = final([40] * 3, [[10, 12, 14, 16], [20, 30, 40, 40], [20, 30, 40, 40]])
    text = table.table(findings(base | {trial_of("decay"): slow}), tuned=True)
    assert "  1.0 (2 of 3)  +1.00, +1.00 (2 of 3)" in text


def test_correlations_are_told_with_their_intervals():
    outcomes = {
        trial_of(name): final([60.0 + place, 61.0 + place], norm=9.0 - (place == 3))
        for place, name in enumerate(list(INTERVENTIONS)[:8])
    }
    text = table.correlation_table(findings(outcomes))
    assert "over 8 methods" in text
    assert re.split(r"  +", text.splitlines()[-1])[:2] == [
        "norm",
        "+0.08 (-0.66 to +0.74)",
    ]
    assert not table.correlation_table(findings(dict(list(outcomes.items())[:5])))


def test_a_column_of_which_nothing_is_known_is_not_shown():
    known = findings(outcomes_of(decay=[60.0, 61.0]))
    text = table.table(known)
    assert "effective" in text and "less" not in text and "epochs to" not in text
    (trial,), (outcome,) = zip(*outcomes_of(decay=[60.0, 61.0]).items(), strict=True)
    rows = [
        row._replace(effective_before=NAN, effective_after=NAN) for row in outcome.layers
    ]
    assert "effective" not in table.table(
        findings({trial: outcome._replace(layers=rows)})
    )


def test_the_overview_has_a_column_for_each_setting():
    one = findings(outcomes_of(none=BASE, paper_init=BASE))
    better = np.add(BASE, [1, 2, 1, 2, 1.5]).tolist()
    two = findings(outcomes_of(none=BASE, decay=better))
    lines = table.overview({"plain": one, "digits": two}).splitlines()
    assert re.split(r"  +", lines[1].strip())[1:] == ["plain", "digits"]
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "the baseline itself, %",
        "paper-init",
        "decay",
    ]
    assert lines[-1].endswith("+1.50 ± 0.62 *")


def test_the_csv_files_have_a_row_for_each_seed_and_epoch(three):
    header, rows = table.seed_rows(three)
    assert len(rows) == 9 and all(len(row) == len(header) for row in rows)
    named = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["accuracy"] for row in named[:3]] == [60, 61, 64]
    assert [row["diverged_at"] for row in named[3:6]] == [None, 3, None]
    assert named[0]["norm_start"] == pytest.approx(5)
    assert named[0]["effective_maps_end"] == pytest.approx(0.1)
    outcomes = {one.trial: one.outcome for one in three.values()}
    header, rows = table.curve_rows(outcomes)
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    assert text.getvalue().splitlines()[1] == "none,0,1,50.0,50.0"
    assert len(rows) == 18


def test_curves_are_of_finished_seeds_and_less_the_baseline(three):
    left, right = plots.accuracy(three, "test").axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    np.testing.assert_allclose(drawn["none"], [51, 185 / 3])
    np.testing.assert_allclose(drawn["paper-init"], [70, 80.5])
    apart = {line.get_label(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(apart["paper-init"], [19, 18.5])
    assert "none" not in apart
    assert "all seeds diverged: paper-reg" in left.get_title()


def test_gains_show_seeds_and_say_what_diverged(three):
    (axes,) = plots.gains(three).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["paper-init", "paper-reg"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [20, 17])
    assert axes.get_ylim() == (1.5, -0.5)  # half a row above and below
    assert any("diverged" in text.get_text() for text in axes.texts)
    # Two seeds have no interval; five do.
    assert not axes.containers
    (axes,) = plots.gains(findings(outcomes_of(none=BASE, decay=BASE[::-1]))).axes
    assert len(axes.containers) == 1


def test_accuracy_is_shown_against_the_effective_maps():
    names = ("none", "decay", "muon", "shrunk", "scaled", "decorrelate")
    outcomes = {
        trial_of(name): final([60.0 + place, 61, 62], similarity=0.3 * place)
        for place, name in enumerate(names)
    }
    found = findings(outcomes)
    (axes,) = plots.figures(found, SETTINGS["plain"])["effective"].axes
    for text in axes.texts:  # each is nearer to its own cross than to the others
        one = found[text.get_text()]
        assert text.get_color() == plots.ROLES[INTERVENTIONS[one.name].role]
        box = text.get_window_extent()
        from_cross = {}
        for name, other in found.items():
            at = other.end["effective_maps"].mean(), other.accuracy.mean()
            apart = axes.transData.transform(at) - np.clip(
                axes.transData.transform(at), box.p0, box.p1
            )
            from_cross[name] = np.linalg.norm(apart)
        assert min(from_cross, key=from_cross.get) == one.name
    assert len(axes.texts) == len(names)
    crosses = [line.get_xydata()[0] for line, *_ in axes.containers]
    expected = [
        (x.end["effective_maps"].mean(), x.accuracy.mean()) for x in found.values()
    ]
    np.testing.assert_allclose(crosses, expected)
    assert "correlation +1.00" in axes.get_title()
    few = findings(dict(list(outcomes.items())[:2]))
    assert "effective" not in plots.figures(few, SETTINGS["plain"])


def test_names_of_crosses_that_are_close_do_not_hide_each_other():
    close = {
        name: np.add(BASE, 0.01 * place).tolist()
        for place, name in enumerate(("paper_init", "decay", "muon", "shrunk"))
    }
    figure = plots.against_effective(findings(outcomes_of(none=BASE, **close)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_layers_go_from_before_training_to_after():
    found = findings(outcomes_of(none=BASE, decay=BASE))
    panels = plots.layers(found).axes
    titles = [axes.get_title().replace("\n", " ") for axes in panels]
    assert titles == [
        "feature-map similarity before the activation",
        "feature-map similarity after the activation",
        "effective maps before the activation, of all channels",
        "kernel similarity",
    ]
    start, end = (line.get_ydata() for line in panels[0].lines[:2])
    np.testing.assert_allclose(start, [0.5, 0.6])
    np.testing.assert_allclose(end, [0.25, 0.35])


def test_matrices_show_the_recommended_method_and_what_diverged():
    kernels = final([1.0], kernels=True).kernels
    names = {name: [60.0, 61.0] for name in DEMO} | {"none": [NAN, 61.0]}
    found = findings(outcomes_of(**names))
    for draw in (plots.kernel_matrices, plots.map_matrices):
        figure = draw(found, lambda name: kernels)
        titles = [axes.get_title() for axes in figure.axes]
        assert titles[3].startswith("decorrelate\nthe maps of each layer\ndecorrelated")
        assert titles[4].startswith("diverged at epoch 3") and "diverged" not in titles[5]
        assert "Conv_1" in figure.get_supxlabel()


def test_effective_maps_are_those_of_the_correlations():
    matrix = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, np.nan]])  # one is constant
    kernels = {f"start/a/{x}": matrix for x in ("kernel", "correlation")}
    kernels["end/a/correlation"] = -np.ones((2, 2))
    figure = plots.map_matrices(findings(outcomes_of(decay=[60.0])), lambda name: kernels)
    before, after, _ = figure.axes
    assert before.get_title().endswith(f"{2**2 / 2.5:.1f} effective maps")
    assert after.get_title() == "1.0 effective maps"


def test_a_log_axis_says_so():
    found = findings(outcomes_of(none=BASE, decay=BASE))
    figure = plots.sizes({"a": found, "b": found}, {"a": 100, "b": 1000})
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and "log" in axes.get_xlabel()
    for line, *_ in axes.containers:
        np.testing.assert_array_equal(line.get_xdata(), [100, 1000])
    low, high = axes.get_xlim()
    assert low < 80 and high > 1250  # labels have room


@pytest.mark.parametrize("accuracies", [[50.0], [NAN], [NAN, NAN]])
def test_everything_is_drawn_of_one_seed_and_of_none_that_finished(accuracies, tmp_path):
    curves = [[value] for value in accuracies]
    outcome = final(accuracies, curves, kernels=True)
    found = findings({trial_of("paper-init"): outcome})
    drawn = plots.figures(found, SETTINGS["plain"])
    drawn["matrix"] = plots.kernel_matrices(found, lambda name: outcome.kernels)
    drawn["maps"] = plots.map_matrices(found, lambda name: outcome.kernels)
    plots.save(drawn, tmp_path, "a title")
    for name in ("accuracy", "gains", "layers", "matrix", "maps"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    (axes, _) = drawn["accuracy"].axes
    assert ("diverged" in axes.get_title()) == bool(np.isnan(accuracies).all())


def test_those_that_are_followed_have_colours_of_their_own():
    colours = [to_hex(plots.colour_of(name)) for name in (*plots.FOLLOWED, *DEMO)]
    assert len(set(colours)) == len(plots.FOLLOWED)
