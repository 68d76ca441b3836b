"""Tables of the benchmark: figures computed by hand from made-up measurements."""

from experiments.benchmark import report
from experiments.benchmark.updates import SGD


def row(program, milliseconds, **more):
    return {
        "program": program,
        "median": 1e-3 * milliseconds,
        "quartiles": [0.9e-3 * milliseconds, 1.2e-3 * milliseconds],
        "weights": 2_000_000,
        "compile_seconds": None,
        "extra_memory": None,
        **more,
    }


def test_table_of_training():
    rows = [row("training step", 250), row(SGD, 10), row("all pairs", 22.5)]
    rows = [{**each, "batch_size": 50, "dtype": "float32"} for each in rows]
    lines = report.training_table("cnn", rows).splitlines()
    # The loss costs 12.5 ms of a step of 250 ms, in which the update takes 10 ms.
    assert [" ".join(line.split()) for line in lines] == [
        "cnn, 50 images, float32 ms of the step images a second",
        lines[1],
        "training step 250 100.00% 200",
        "SGD with momentum 10 4.00%",
        "all pairs 12 5.00%",
    ]


def test_table_of_a_network():
    rows = [
        row(SGD, 4, compile_seconds=0.25, extra_memory=0.0),
        row("all pairs", 10, compile_seconds=3.5, extra_memory=1.3),
        row("PyTorch: SGD with momentum", 8),
        row("PyTorch: OCNN", 240),
    ]
    lines = report.kernels_table("lenet", rows).splitlines()
    # The loss takes 6 ms for 2 M weights, which is 3 ns a weight.
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "SGD with momentum 4.0 3.6 - 4.8 1.0 0 0 0.25 0",
        "all pairs 10 9.0 - 12 2.5 6.0 3.0 3.5 1.3",
        "PyTorch: SGD with momentum 8.0 7.2 - 9.6 1.0 0 0",
        "PyTorch: OCNN 240 216 - 288 30 232 116",
    ]
