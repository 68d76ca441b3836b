"""The run report: says what the folder holds, of every kind of run, in one safe file."""

import csv
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from experiments import command_line
from experiments.record import read_kernels, read_run
from experiments.report import write_report
from experiments.report.__main__ import Config, main
from experiments.report.page import write_comparison
from tests.experiments.report.run_report_case import (
    SHAPES,
    history,
    kernels,
    make_run,
    outcome,
)

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Reads a page, and fails where it is not what a browser can rely on."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.addresses, self.ids = [], [], [], []
        self.tables: list[list[list[str]]] = []
        self.text, self.words = text, ""
        self.feed(text)
        self.close()
        assert self.open == []
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "img" or attributes.get("role") == "img":
            self.images.append(attributes.get("alt", attributes.get("aria-label")))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[x] for x in ("src", "href") if x in attributes]

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "svg" not in self.open:
            self.words += data + " "
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def report(folder):
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three seeds and its page."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run")
    return folder, report(folder)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The page of three runs, one of which has a seed that diverged, and its CSV."""
    root = tmp_path_factory.mktemp("compared")
    folders = [
        make_run(root / "a", method="none"),
        make_run(root / "b", method="paper-init", better=(2, 3, 7)),
        make_run(root / "c", method="decay", diverged_at={0: 3}, effective=True),
    ]
    path = write_comparison(folders, root / "pages" / "all.html")
    with path.with_suffix(".csv").open() as file:
        return Page(path.read_text("utf-8")), list(csv.DictReader(file))


def test_pages_are_whole_without_a_network_and_pictures_have_words(finished, compared):
    # Curves, bars, filters, matrices.
    for page, images in ((finished[1], 6 + 3 + 2 + 4), (compared[0], 6 + 4)):
        assert all(address.startswith(("data:", "#")) for address in page.addresses)
        assert not re.search(r"@import|<script|url\((?!#)", page.text)
        assert "default-src 'none'" in page.text
        assert len(page.images) == images and all(page.images)
        assert page.ids and len(set(page.ids)) == len(page.ids)


def test_it_says_how_well_it_did_and_how_to_repeat_it(finished):
    _, page = finished
    # 93, 93.5 and 94: a standard deviation of 0.5, and 4.303 is Student's t of 2 degrees.
    assert "93.50 ± 1.24 mean of 3 seeds and its 95 % interval; 10,000 " in page.words
    assert "Chosen epoch 26 to 28 best on the validation images" in page.words
    assert "resnet18 on cifar10" in page.words
    assert "the scale-free cross-channel loss minimised before training" in page.words
    assert "python -m experiments.train --config cifar10-resnet18" in page.words
    assert "python 3.11.2, jax 0.10.2" in page.words
    assert "milestones 100, 150" in page.words and "train_size -" in page.words
    # Of each curve, its first value and its last.
    rates = "learning rate 0.0500 in epoch 0 and 1.42e-17 in epoch 30."
    assert f"Learning rate: {rates}" in page.images


@pytest.mark.parametrize("effective", [False, True])
def test_the_table_has_the_mean_of_each_layer(tmp_path, effective):
    page = report(make_run(tmp_path / "run", effective=effective))
    expected = outcome(effective=effective)
    fields = ["scale_free_loss", "before", "after", "before_centered", "after_centered"]
    fields += ["effective_before", "effective_after"] * effective
    (table,) = [x for x in page.tables if x[0][0] == "layer"]
    assert len({len(row) for row in table}) == 1
    for index, (name, shape) in enumerate(SHAPES.items()):
        layer, kernel, _, _, *cells = table[1 + index]
        assert (layer, kernel) == (name[: -len("/kernel")], "x".join(map(str, shape)))
        if "1x1" in kernel:
            assert cells.pop(0) == "- → -"  # it would be 1 whatever they are
            fields = fields[1:]
        assert cells == [
            " → ".join(
                f"{getattr(layers, field)[:, index].mean():#.3g}"
                for layers in (expected.start, expected.end)
            )
            for field in fields
        ]
    assert ("Effective maps, %" in page.words) == effective


def test_a_diverged_seed_is_named_and_left_out(tmp_path):
    page = report(make_run(tmp_path / "run", diverged_at={2: 7}))
    assert "Seed 2 diverged in epoch 7: means are of the others." in page.words
    assert "93.00, 93.50 two seeds" in page.words


def test_all_seeds_diverged(tmp_path):
    page = report(make_run(tmp_path / "run", seeds=2, diverged_at={0: 1, 1: 3}))
    assert "Seeds 0, 1 diverged in epoch 1 to 3: no seed is left" in page.words
    assert "accuracy" not in page.words.split("Training")[0].split("0 diverged")[1]
    for missing in ("their mean", "dot on the", "layer by layer", "Kernels of", "93."):
        assert missing not in page.words


def test_one_seed_without_validation(tmp_path):
    page = report(make_run(tmp_path / "run", seeds=1, epochs=1, validation=False))
    assert "93.00 one seed" in page.words and "28 the last" in page.words
    assert "A dot" not in page.words and "thin line" not in page.words


def test_a_run_that_is_going_on(tmp_path):
    folder = make_run(tmp_path / "run", epochs=3)
    for name in ("results.json", "kernels.npz"):
        (folder / name).unlink()
    history = folder / "history.json"
    history.write_text(json.dumps(json.loads(history.read_text())[:2]))
    page = report(folder)
    assert "Not finished: 1 of 3 epochs done." in page.words
    assert "Validation accuracy" in page.words and "so far" in page.words
    assert "layer by layer" not in page.words and "Kernels of" not in page.words
    history.unlink()
    page = report(folder)
    assert "Not finished: 0 of 3 epochs done." in page.words
    assert "No epoch is done yet." in page.words


def test_fifty_layers_fold_up(tmp_path):
    shapes = {f"Block_{i}/Conv_0/kernel": (3, 3, 2, 4) for i in range(53)}
    page = report(make_run(tmp_path / "run", seeds=1, epochs=2, shapes=shapes))
    assert "All 53 conv layers" in page.words
    assert "<details open>" not in page.text
    matrices = [alt for alt in page.images if alt.startswith("Similarity matrix")]
    layers = [re.search(r"Block_(\d+)/", alt).group(1) for alt in matrices[::2]]
    assert layers == ["0", "17", "35", "52"]


def test_runs_are_compared_seed_by_seed(compared):
    page, _ = compared
    results = {row[0]: row for row in page.tables[0]}
    assert results["none"][1:3] == ["93.50 ± 1.24", "-"]
    # 2, 3 and 7 more: a mean of 4, a deviation of 2.646, Student's t of 4.303.
    assert results["paper-init"][2] == "+4.00 ± 6.57"
    assert results["decay"][1:3] == ["93.50, 94.00", "+0.00, +0.00"]
    assert results["decay"][7] == "2 of 3" and results["none"][5] == "- → -"
    assert "decay: 1 of 3 seeds diverged; means are of the others." in page.words
    assert "weight decay of the conv kernels" in page.words
    (differing,) = [table for table in page.tables if table[0][0] == "option"]
    assert differing[1:] == [["method", "none", "paper-init", "decay"]]
    accuracy = next(alt for alt in page.images if alt.startswith("Accuracy"))
    assert re.match(r"Accuracy, %: none .* 30; paper-init .* 30; decay ", accuracy)


def test_the_csv_has_a_row_a_run_and_seed(compared):
    _, rows = compared
    assert [(row["run"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("none", "paper-init", "decay") for seed in "012"
    ]
    assert [float(row["accuracy"]) for row in rows[3:6]] == [95, 96.5, 101]
    assert rows[0]["effective_maps_percent"] == ""
    kernels = [float(row["kernel_similarity"]) for row in rows[:3]]
    np.testing.assert_allclose(kernels, outcome().end.scale_free_loss[:, :2].mean(1))
    expected = outcome(effective=True, diverged_at={0: 3}).end
    share = 100 * expected.effective_before / [shape[-1] for shape in SHAPES.values()]
    assert float(rows[6]["effective_maps_percent"]) == pytest.approx(share[0].mean())
    assert float(rows[6]["feature_map_similarity"]) == expected.before[0].mean()
    assert rows[6]["diverged_at"] == "3.0"


def test_runs_that_cannot_be_paired_or_laid_side_by_side(tmp_path):
    folders = [
        make_run(tmp_path / "x" / "run"),
        make_run(tmp_path / "y" / "run", seeds=2, shapes={"Other/kernel": (3, 3, 3, 8)}),
        make_run(tmp_path / "z" / "run"),
    ]
    (folders[2] / "results.json").unlink()
    page = Page(write_comparison(folders, tmp_path / "all.html").read_text("utf-8"))
    rows = {row[0]: row for row in page.tables[0]}
    assert rows[str(folders[1])][1:3] == ["93.00, 93.50", "-"]  # as names are alike
    assert f"{folders[2]} is not finished" in page.words
    assert "no results, or not of the same layers" in page.words
    with pytest.raises(ValueError, match="a run folder is there twice"):
        write_comparison([folders[0], folders[0]], tmp_path / "all.html")


def test_what_options_came_to_has_a_row_for_each_part_that_is_known(tmp_path):
    folder = make_run(tmp_path / "run", seeds=1, epochs=1)
    config = json.loads((folder / "config.json").read_text())
    dataset = {"version": "", "shape": [8, 8, 1], "sizes": {"train": 898, "test": 899}}
    config["settled"] = {"dataset": dataset, "strength": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    *_, rows = report(folder).tables
    assert rows == [
        ["device", "cpu"],
        ["versions", "python 3.11.2, jax 0.10.2"],
        ["dataset shape", "8, 8, 1"],
        ["dataset sizes", "train 898, test 899"],
        ["strength", "0.0"],
    ]


def test_text_of_a_run_is_no_markup(tmp_path):
    folder = make_run(tmp_path / "run", seeds=1, epochs=1)
    config = json.loads((folder / "config.json").read_text())
    attack = "<script>alert('&')</script>"
    config["command"] = config["options"]["dataset"] = config["device"] = attack
    (folder / "config.json").write_text(json.dumps(config))
    page = report(folder)
    assert "script" not in page.open
    assert page.words.count(attack) == 3
    assert html.escape(attack)[:14] in page.text


@pytest.mark.parametrize("effective", [False, True])
def test_what_was_written_is_read_again(tmp_path, effective):
    made = {"diverged_at": {1: 1}, "effective": effective}
    path = make_run(tmp_path, epochs=2, **made) / "results.json"
    if not effective:  # as in records of earlier versions
        content = json.loads(path.read_text())
        for layers in (content["start"], content["end"]):
            del layers["effective_before"], layers["effective_after"]
        path.write_text(json.dumps(content))
    run, expected = read_run(tmp_path), outcome(**made)
    for read, row in zip(run.history, history(epochs=2, diverged_at={1: 1}), strict=True):
        np.testing.assert_equal(read._asdict(), row._asdict())
    np.testing.assert_equal(run.outcome.end._asdict(), expected.end._asdict())
    without = {"start": 0, "end": 0}
    np.testing.assert_equal(run.outcome._replace(**without), expected._replace(**without))
    np.testing.assert_equal(read_kernels(tmp_path), kernels())


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        *((f"{name}.json", None, "") for name in ("config", "history", "results")),
        ("config.json", lambda c: c.pop("options"), "it names no options"),
        ("history.json", lambda c: c[0].pop("loss"), "its fields are not .*: loss"),
        ("history.json", lambda c: c.append(3), "'int' object"),
        ("results.json", lambda c: c.update(accuracy=["a"]), "could not convert"),
    ],
)
def test_damaged_files_are_named_and_the_page_stays(tmp_path, name, edit, said):
    folder = make_run(tmp_path, epochs=1)
    (folder / "report.html").write_text("as it was")
    text = (folder / name).read_text()
    content = json.loads(text)
    if edit:
        edit(content)
    (folder / name).write_text(json.dumps(content) if edit else text[:99])
    with pytest.raises(ValueError, match=f"{name} is damaged: {said}"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "as it was"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ("a", 0, "a/report.html"),
        ("a b --output c.html", 0, "c.html"),
        ("", 2, "error: no run folder is given; expected one or more"),
        ("no", 2, "error: no holds no config.json; expected a run folder"),
        ("a b --output c.csv", 2, "error: --output is c.csv; expected a name that ends"),
        ("a --output c.html", 2, "error: --output is c.html; expected a name that ends"),
    ],
)
def test_the_command_names_what_it_wrote_or_what_is_wrong(
    argv, code, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in "ab" if code == 0 else "":
        make_run(tmp_path / name, seeds=1, epochs=1)
    assert command_line.run(main, Config, argv.split(), prog="report") == code
    assert "".join(capsys.readouterr()).startswith(said)
    if code == 0:
        assert (tmp_path / said).exists()
