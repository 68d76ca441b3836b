"""Tables of the benchmark: figures computed by hand from made-up measurements."""

from experiments.benchmark import report
from experiments.benchmark.programs import SGD


def row(program, median, **more):
    return {"program": program, "median": median, "steps": 2, "batch_size": 50, **more}


def test_table_of_training():
    rows = [row("training step", 0.5, dtype="float32")]
    rows += [row("all pairs of its kernels", 0.0125), row("drawing its images", 0.01)]
    alone = report.training_table({"cnn": rows}).splitlines()
    assert alone[1].startswith("training, 50 images of 32x32 a step, float32  a second")
    # 2 steps of 50 images in half a second; a step of 250 ms, the loss 12.5 ms, and
    # the images of two steps 10 ms.
    parts = ["250", "12", "5.00%", "5.0", "2.00%"]
    assert alone[-1].split() == ["cnn", "200", *parts]
    rows += [row("PyTorch", 0.8), row("PyTorch, channels last", 0.4)]
    table = report.training_table({"cnn": rows, "resnet18": rows})
    cells = ["200", "125", "250", "0.80", *parts]
    assert [line.split() for line in table.splitlines()[-2:]] == [
        ["cnn", *cells],
        ["resnet18", *cells],
    ]


def measured(program, milliseconds, weights, compile_seconds=None, extra_memory=None):
    return {
        "program": program,
        "median": 1e-3 * milliseconds,
        "quartiles": [0.9e-3 * milliseconds, 1.2e-3 * milliseconds],
        "weights": weights,
        "compile_seconds": compile_seconds,
        "extra_memory": extra_memory,
    }


def test_table_of_a_network():
    rows = [
        measured("copy", 1, 2_000_000, 0.04, 0.0),
        measured(SGD, 4, 2_000_000, 0.25, 0.5),
        measured("all pairs", 6, 2_000_000, 3.5, 1.3),
        measured("PyTorch", 240, 2_000_000),
        measured("definition", 60, 500_000, 12.0, 140.0),
    ]
    lines = report.network_table("lenet", rows).splitlines()
    # 6 ms for 2 M weights are 3 ns a weight, and 8 bytes in 3 ns are 2.7 GB/s.
    assert [" ".join(line.split()) for line in lines] == [
        "median quartiles times ns a weights and compiled extra memory,",
        "lenet, 2.0 M weights ms ms SGD weight gradient, GB/s in s times weights",
        lines[2],
        "copy 1.0 0.90 - 1.2 0.25 0.50 16 0.040 0",
        "SGD with momentum 4.0 3.6 - 4.8 1.0 2.0 4.0 0.25 0.50",
        "all pairs 6.0 5.4 - 7.2 1.5 3.0 2.7 3.5 1.3",
        "PyTorch 240 216 - 288 60 120 0.067",
        "definition (0.5 M) 60 54 - 72 60 120 0.067 12 140",
    ]


def test_table_of_growth():
    sizes = {"M": (128, 256, 1024), "layers": (1, 4)}
    milliseconds = iter((2, 4, 24, 10, 20))
    rows = [
        {"axis": axis, "size": size, **measured("all pairs", next(milliseconds), size)}
        for axis, of_axis in sizes.items()
        for size in of_axis
    ]
    # 2 ms for 128 weights and 24 for 1024, which is 1.5 times as long a weight.
    lines = report.growth_table(rows).splitlines()[2:]
    assert [line.split() for line in lines] == [
        ["M", "128", "1.0"],
        ["M", "256", "1.0"],
        ["M", "1024", "1.5"],
        ["layers", "1", "1.0"],
        ["layers", "4", "0.50"],
    ]
