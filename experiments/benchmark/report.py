"""Tables of a benchmark."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.benchmark.parts import DECORRELATED, STEP
from experiments.benchmark.torch_programs import SGD as TORCH_SGD
from experiments.benchmark.updates import SGD
from experiments.table import aligned

Rows = Sequence[dict]
Columns = Mapping[str, Callable[[dict], Any]]


def text(results: Mapping[str, Rows], environment: Mapping[str, str]) -> str:
    """All tables, headed by what they were measured on, or compiled for."""
    parts = [", ".join(f"{name} {said}" for name, said in environment.items())]
    for name, rows in results.items():
        kind, _, of = name.partition("-")
        parts.append(TABLES[kind](of, rows))
    return "\n\n".join(parts) + "\n"


def table(title: str, rows: Rows, columns: Columns) -> str:
    """One line a program: its name, and under each heading what is made of its row."""
    cells = [[cell(of(row)) for of in columns.values()] for row in rows]
    lines = [[row["program"], *line] for row, line in zip(rows, cells, strict=True)]
    return aligned([title, *columns], lines)


def alone(rows: Rows, row: dict) -> float:
    """Seconds of the update without a loss, where that of the row ran."""
    median = {row["program"]: row["median"] for row in rows}
    return median[TORCH_SGD if row["program"].startswith("PyTorch") else SGD]


def kernels_table(name: str, rows: Rows) -> str:
    """The updates of one network's kernels."""

    def cost(row: dict) -> float:
        return row["median"] - alone(rows, row)

    columns: Columns = {
        "update\nms": lambda row: 1e3 * row["median"],
        "quartiles\nms": lambda row: " - ".join(cell(1e3 * x) for x in row["quartiles"]),
        "times that\nwithout": lambda row: row["median"] / alone(rows, row),
        "the loss\nms": lambda row: 1e3 * cost(row),
        "ns a\nweight": lambda row: 1e9 * cost(row) / row["weights"],
        "compiled\nin s": lambda row: row["compile_seconds"],
        "extra memory,\ntimes weights": lambda row: row["extra_memory"],
    }
    weights = rows[0]["weights"] / 1e6
    return table(f"{name}, {weights:.1f} M weights, float32", rows, columns)


def training_table(name: str, rows: Rows) -> str:
    """What the update takes of a step of training, and losses beside that."""
    median = {row["program"]: row["median"] for row in rows}
    step, update = median[STEP], median[SGD]
    without = {STEP: 0.0, SGD: 0.0, DECORRELATED: step}

    def seconds(row: dict) -> float:
        return row["median"] - without.get(row["program"], update)

    columns: Columns = {
        "ms": lambda row: 1e3 * seconds(row),
        "of the step": lambda row: f"{seconds(row) / step:.2%}",
        "images a second": lambda row: count / step if row["program"] == STEP else None,
    }
    count = rows[0]["batch_size"]
    return table(f"{name}, {count} images, {rows[0]['dtype']}", rows, columns)


def compiled_table(name: str, rows: Rows) -> str:
    """Value and gradient of the kernels of a network, compiled for an accelerator."""
    columns = {
        "kernels": lambda row: str(row["kernels"]),
        "bytes, times\nthe weights'": lambda row: f"{row['times_moved']:.1f}",
        "times\nSGD's": lambda row: f"{row['moved'] / rows[0]['moved']:.1f}",
        "extra memory,\ntimes weights": lambda row: f"{row['times_memory']:.2f}",
    }
    return table(f"{name}, float32", rows, {**columns, **ROOFLINE})


def step_table(name: str, rows: Rows) -> str:
    """A step of training, compiled for an accelerator."""

    def exchanged(row: dict) -> str:
        sizes = {k: (len(x), cell(1e-6 * sum(x))) for k, x in row["exchanged"].items()}
        return ", ".join(f"{n} {kind} of {MB} MB" for kind, (n, MB) in sizes.items())

    columns = {
        "kernels": lambda row: str(row["kernels"]),
        "moved\nGB": lambda row: 1e-9 * row["moved"],
        "memory\nGB": lambda row: 1e-9 * row["memory"],
        "fits": lambda row: "yes" if row["fits"] else "NO",
        **ROOFLINE,
        "exchanged": exchanged,
    }
    titled = [row | {"program": f"{row['layout']}: {row['program']}"} for row in rows]
    return table(f"{name}, a step in bfloat16", titled, columns)


ROOFLINE: Columns = {
    "bytes over\nbandwidth, ms": lambda row: 1e3 * row["memory_seconds"],
    "launches\nms": lambda row: 1e3 * row["launch_seconds"],
}
TABLES = {
    "kernels": kernels_table,
    "training": training_table,
    "compiled": compiled_table,
    "step": step_table,
}


def cell(value: Any) -> str:
    """Two digits or more of a number; nothing for what is not known.

    >>> [cell(value) for value in (0.0123, 0.5, 56.78, 1234.5, 0.0, None, "yes")]
    ['0.012', '0.50', '57', '1234', '0', '', 'yes']
    """
    if not value or isinstance(value, str):
        return "" if value is None else str(value or "0")
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"
