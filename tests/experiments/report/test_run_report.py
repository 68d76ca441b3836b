"""The run report: says what the folder holds, of every kind of run, in one safe file."""

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from experiments import command_line
from experiments.record import read_history, read_kernels, read_outcome
from experiments.report import write_report
from experiments.report.__main__ import Config, main
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
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img" or attributes.get("role") == "img":
            self.images.append(attributes.get("alt", attributes.get("aria-label")))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.addresses += [
            value for name, value in attributes.items() if name in ("src", "href")
        ]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "svg" not in self.open:
            self.words += data + " "


def report(folder):
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three seeds and its page."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run")
    return folder, report(folder)


def test_the_page_asks_nothing_of_the_network(finished):
    folder, page = finished
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    text = (folder / "report.html").read_text("utf-8")
    assert not re.search(r"@import|<script|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_picture_has_words(finished):
    _, page = finished
    # Six curves, three charts of layers, two filters, a scale, two matrices.
    assert len(page.images) == 6 + 3 + 2 + 1 + 2 * 2
    assert all(page.images)
    assert page.ids and len(set(page.ids)) == len(page.ids)


def test_the_headline_is_the_mean_and_students_interval(finished):
    _, page = finished
    # 93, 93.5 and 94: a standard deviation of 0.5, and 4.303 is Student's t of 2 degrees.
    assert "93.50 ± 1.24 % mean of 3 seeds and its 95 % interval" in page.words
    assert "10,000 images" in page.words
    assert "Chosen epoch 26 to 28 best on the validation images" in page.words
    assert "resnet18 on cifar10" in page.words
    assert "1 h 06 min" in page.words  # 4000 seconds


def test_it_says_how_to_repeat_the_run(finished):
    _, page = finished
    assert "python -m experiments.train --config cifar10-resnet18" in page.words
    assert "python -m experiments.train --config path/to/run" in page.words
    assert "python 3.11.2, jax 0.10.2" in page.words
    assert "milestones 100, 150" in page.words and "train_size -" in page.words


def test_values_stand_beside_their_names_however_high_the_table_next_to_them(finished):
    folder, _ = finished
    text = (folder / "report.html").read_text("utf-8")
    assert "align-items: start" in re.search(r"\.columns \{[^}]*", text)[0]
    assert "vertical-align: top" in re.search(r"\.options td \{[^}]*", text)[0]


def test_the_table_has_the_mean_of_each_layer(finished):
    _, page = finished
    expected = outcome()
    for index, name in enumerate(SHAPES):
        row = [str(index + 1), name.removesuffix("/kernel")]
        row += ["x".join(map(str, SHAPES[name]))]
        for field in (
            "scale_free_loss",
            "before",
            "after",
            "before_centered",
            "after_centered",
        ):
            start, end = (
                f"{getattr(layers, field)[:, index].mean():.3f}"
                for layers in (expected.start, expected.end)
            )
            row.append(f"{start} → {end}")
        pattern = (
            " ".join(map(re.escape, row[:3]))
            + r"( [\d.,]+ → [\d.,]+){2} "
            + " ".join(row[3:])
        )
        assert re.search(pattern, page.words)


def test_every_table_has_as_many_headings_as_cells(finished):
    folder, _ = finished
    text = (folder / "report.html").read_text("utf-8")
    headed = [x for x in re.findall("(?s)<table.*?</table>", text) if "<thead>" in x]
    assert len(headed) == 2
    for table in headed:
        widths = [
            len(re.findall("<t[hd]\\b", row))
            for row in re.findall("(?s)<tr.*?</tr>", table)
        ]
        assert len(widths) > 1 and len(set(widths)) == 1


def test_descriptions_of_curves_name_the_first_and_the_last_value(finished):
    _, page = finished
    rates = [alt for alt in page.images if alt.startswith("Learning rate")]
    assert rates == [
        "Learning rate: learning rate 0.0500 in epoch 0 and learning rate 3.06e-18 in "
        "epoch 30."
    ]


def test_a_diverged_seed_is_named_and_left_out(tmp_path):
    page = report(make_run(tmp_path / "run", diverged_at={2: 7}))
    assert "Seed 2 diverged in epoch 7: means are of the others." in page.words
    assert "93.25 ± 3.18 % mean of 2 seeds" in page.words  # t = 12.706, s = 0.3536
    assert "2 - - diverged in epoch 7" in page.words


def test_all_seeds_diverged(tmp_path):
    page = report(make_run(tmp_path / "run", seeds=2, diverged_at={0: 1, 1: 3}))
    assert "Seeds 0, 1 diverged in epoch 1 to 3." in page.words
    assert "accuracy" not in page.words.split("Training")[0].replace("accuracy %", "")
    assert "layer by layer" not in page.words


def test_one_seed_without_validation(tmp_path):
    page = report(make_run(tmp_path / "run", seeds=1, epochs=1, validation=False))
    assert "93.00 % one seed, so no interval" in page.words
    assert "28 the last" in page.words
    assert "dot marks" not in page.words and "thin line" not in page.words
    assert any(re.match(r"Accuracy, %: training [\d.]+ in", alt) for alt in page.images)


def test_a_run_that_is_going_on(tmp_path):
    folder = make_run(tmp_path / "run", epochs=3)
    for name in ("results.json", "kernels.npz"):
        (folder / name).unlink()
    (folder / "history.json").write_text(
        json.dumps(json.loads((folder / "history.json").read_text())[:2])
    )
    page = report(folder)
    assert "Not finished: 1 of 3 epochs done." in page.words
    assert "Validation accuracy" in page.words and "so far" in page.words
    assert "layer by layer" not in page.words and "Kernels of" not in page.words
    (folder / "history.json").unlink()
    page = report(folder)
    assert "Not finished: 0 of 3 epochs done." in page.words
    assert "No epoch is done yet." in page.words


def test_fifty_layers_fold_up(tmp_path):
    shapes = {f"Block_{i}/Conv_0/kernel": (3, 3, 2, 4) for i in range(53)}
    folder = make_run(tmp_path / "run", seeds=1, epochs=2, shapes=shapes)
    page = report(folder)
    assert "All 53 conv layers" in page.words
    assert "<details open>" not in (folder / "report.html").read_text("utf-8")
    matrices = [alt for alt in page.images if alt.startswith("Similarity matrix")]
    layers = [re.search(r"Block_(\d+)/", alt).group(1) for alt in matrices[::2]]
    assert layers == ["0", "17", "35", "52"]


def test_text_of_a_run_is_no_markup(tmp_path):
    folder = make_run(tmp_path / "run", seeds=1, epochs=1)
    config = json.loads((folder / "config.json").read_text())
    attack = "<script>alert('&')</script>"
    config["command"] = config["options"]["dataset"] = config["device"] = attack
    (folder / "config.json").write_text(json.dumps(config))
    page = report(folder)
    assert "script" not in page.open
    assert page.words.count(attack) == 3
    assert html.escape(attack)[:14] in (folder / "report.html").read_text("utf-8")


def test_what_was_written_is_read_again(tmp_path):
    folder = make_run(tmp_path / "run", epochs=2, diverged_at={1: 1})
    for read, made in zip(
        read_history(folder), history(epochs=2, diverged_at={1: 1}), strict=True
    ):
        np.testing.assert_equal(read._asdict(), made._asdict())
    read, made = read_outcome(folder), outcome(diverged_at={1: 1})
    np.testing.assert_equal(read.end._asdict(), made.end._asdict())
    np.testing.assert_equal(read._replace(start=0, end=0), made._replace(start=0, end=0))
    np.testing.assert_equal(read_kernels(folder), kernels())


def change(name, edit):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:99])


DAMAGES = {
    "config cut": (cut("config.json"), r"config\.json is damaged: "),
    "config of no run": (
        change("config.json", lambda c: c.pop("options")),
        r"config\.json is damaged: it names no options",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        r"run holds no config\.json; expected a run folder",
    ),
    "history cut": (cut("history.json"), r"history\.json is damaged: "),
    "history of other seeds": (
        change("history.json", lambda c: c[1]["loss"].pop()),
        r"history\.json is damaged: its epochs are not of the same seeds",
    ),
    "history without losses": (
        change("history.json", lambda c: c[0].pop("loss")),
        r"history\.json is damaged: its fields are not those of Epoch: loss",
    ),
    "history that is no list": (
        lambda folder: (folder / "history.json").write_text("{}"),
        r"history\.json is damaged: expected list, found dict",
    ),
    "results with words": (
        change("results.json", lambda c: c.update(accuracy=["a", "b", "c"])),
        r"results\.json is damaged: could not convert string",
    ),
    "results of other layers": (
        change("results.json", lambda c: c["end"]["names"].pop()),
        r"results\.json is damaged: its results are not of the same seeds and layers",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_and_the_page_stays(tmp_path, damage):
    folder = make_run(tmp_path / "run", epochs=1)
    (folder / "report.html").write_text("as it was")
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(ValueError, match=message):
        write_report(folder)
    assert (folder / "report.html").read_text() == "as it was"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_command_names_what_it_wrote(tmp_path, capsys):
    folders = tuple(make_run(tmp_path / name, seeds=1, epochs=1) for name in "ab")
    main(Config(folders))
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(folder / "report.html") for folder in folders]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no run folder is given; expected one or more"),
        (["nowhere"], "nowhere holds no config.json; expected a run folder"),
    ],
)
def test_the_command_ends_in_one_line(argv, message, capsys):
    assert command_line.run(main, Config, argv, prog="report") == 2
    assert capsys.readouterr().err == f"error: {message}\n"
