"""Tables and the plot of a benchmark."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from experiments.benchmark.networks import NETWORKS
from experiments.benchmark.programs import COPY, PENALTIES, SGD
from experiments.benchmark.training_step import INPUT, LOSS, STEP, TRAINED
from experiments.table import aligned


def text(results: Mapping[str, list[dict]], environment: Mapping[str, str]) -> str:
    """All tables, headed by what they were measured on."""
    versions = {name: said for name, said in environment.items() if name != "device"}
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    networks = {name: results[name] for name in results if name in NETWORKS}
    parts = [f"Measured on {environment['device']}; {named}"]
    if networks:
        parts.append("Value and gradient in float32\n\n" + summary_table(networks))
    if "growth" in results:
        parts.append(growth_table(results["growth"]))
    trained = {
        name: results[training_part(name)]
        for name in TRAINED
        if training_part(name) in results
    }
    if trained:
        parts.append(training_table(trained))
    parts += [network_table(name, rows) for name, rows in networks.items()]
    return "\n\n".join(parts) + "\n"


def training_part(name: str) -> str:
    """What the part of the benchmark that trains that network is called.

    >>> training_part("cnn")
    'training-cnn'
    """
    return f"training-{name}"


def training_table(networks: Mapping[str, Sequence[dict]]) -> str:
    """Images a second of each network, and what the loss would take of a step."""
    first = next(iter(networks.values()))
    ours = (STEP, LOSS, INPUT)
    others = [row["program"] for row in first if row["program"] not in ours]
    about = "training, {batch_size} images of 32x32 a step, {dtype}".format(**first[0])
    header = (
        about,
        "images\na second",
        *(f"{name},\nimages a second" for name in others),
        *(["times the faster\nof these"] if others else []),
        "step\nms",
        *(cell for part in ours[1:] for cell in (f"{part},\nms", "share of\nthe step")),
    )
    lines = []
    for name, rows in networks.items():
        took = {row["program"]: row["median"] for row in rows}
        steps = rows[0]["steps"]
        speeds = {
            program: rows[0]["batch_size"] * steps / took[program]
            for program in (STEP, *others)
        }
        best = max((speeds[program] for program in others), default=None)
        step = took[STEP] / steps
        parts = took[LOSS], took[INPUT] / steps
        lines.append(
            (
                name,
                *(f"{speed:,.0f}" for speed in speeds.values()),
                *([] if best is None else [short(speeds[STEP] / best)]),
                short(1e3 * step),
                *(
                    cell
                    for part in parts
                    for cell in (short(1e3 * part), f"{part / step:.2%}")
                ),
            )
        )
    return aligned(header, lines)


def summary_table(networks: Mapping[str, list[dict]]) -> str:
    """Time a weight in units of the optimizer's, networks side by side."""
    programs = [row["program"] for row in next(iter(networks.values()))]
    columns = []
    for rows in networks.values():
        per_weight = {row["program"]: row["median"] / row["weights"] for row in rows}
        columns.append([short(per_weight[name] / per_weight[SGD]) for name in programs])
    header = (f"times the update by {SGD}", *networks)
    return aligned(header, zip(programs, *columns, strict=True))


def network_table(name: str, rows: Sequence[dict]) -> str:
    """The programs of one network, one below the other."""
    weights = max(row["weights"] for row in rows)
    sgd = next(row["median"] for row in rows if row["program"] == SGD) / weights
    header = (
        f"{name}, {weights / 1e6:.1f} M weights",
        "median\nms",
        "quartiles\nms",
        "times\nSGD",
        "ns a\nweight",
        "weights and\ngradient, GB/s",
        "compiled\nin s",
        "extra memory,\ntimes weights",
    )
    lines = []
    for row in rows:
        some = row["weights"] / 1e6
        per_weight = row["median"] / row["weights"]
        lines.append(
            (
                row["program"] + f" ({some:.1f} M)" * (row["weights"] < weights),
                short(1e3 * row["median"]),
                " - ".join(short(1e3 * quartile) for quartile in row["quartiles"]),
                short(per_weight / sgd),
                short(1e9 * per_weight),
                short(8e-9 / per_weight),  # float32: 4 bytes each way
                short(row["compile_seconds"]),
                short(row["extra_memory"]),
            )
        )
    return aligned(header, lines)


def growth_table(rows: Sequence[dict]) -> str:
    """Time a weight as one axis grows, relative to its first size."""
    first: dict[str, float] = {}
    lines = []
    for row in rows:
        per_weight = row["median"] / row["weights"]
        relative = per_weight / first.setdefault(row["axis"], per_weight)
        lines.append((row["axis"], str(row["size"]), short(relative)))
    return aligned(("all pairs, 3x3, 256 channels", "size", "time a weight"), lines)


def short(value: float | None) -> str:
    """Two digits or more; nothing for what is not known.

    >>> [short(value) for value in (0.0123, 0.5, 1.234, 56.78, 1234.5, 0.0, None)]
    ['0.012', '0.50', '1.2', '57', '1234', '0', '']
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def cost_figure(rows: Sequence[dict], device: str) -> Figure:
    """Nanoseconds a weight against the width of a 3x3 conv, of all but variants."""
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["program"] != COPY and ", adjacent" not in row["program"]:
            line = lines.setdefault(row["program"], {})
            line[row["size"]] = 1e9 * row["median"] / row["weights"]
    figure = Figure(figsize=(8.5, 4.6), dpi=150, layout="constrained")
    panel = figure.subplots()
    # In the legend as they end in the plot: the dearest first.
    for name, line in sorted(lines.items(), key=lambda item: -list(item[1].values())[-1]):
        style = {"color": "black", "linewidth": 3} if name == SGD else {"marker": "o"}
        dashes = "--" if name in PENALTIES else "-"
        panel.plot(
            list(line),
            list(line.values()),
            label=name,
            linestyle=dashes,
            markersize=4,
            **style,
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    widths = sorted({width for line in lines.values() for width in line})
    panel.set_xticks(widths, [str(width) for width in widths])
    panel.set_xlabel("input and output channels of a 3x3 conv")
    panel.set_ylabel("value and gradient, ns a weight")
    panel.grid(alpha=0.3, which="both")
    panel.set_title(f"Cost against width, on {device}", size=10)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure
