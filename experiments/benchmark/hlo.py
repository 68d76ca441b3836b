"""What a compiled program does, by its text in XLA's notation (HLO)."""

import re
from typing import Any, NamedTuple

import numpy as np

# What costs nothing, or is done beside other instructions.
FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"}
FREE |= {"copy-start", "slice-start", "partition-id"}
VIEWS = {"bitcast", "reshape", "tuple", "get-tuple-element"}
SLICES = {"slice", "dynamic-slice", "gather"}
BITS = {"pred": 8, "bf": 16}

COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* {$")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
INNER = re.compile(r"(?:body|to_apply|calls|branch_computations)={?%?([\w.\-]+)")
TRIPS = re.compile(r'known_trip_count":{"n":"(\d+)"')
COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
COLLECTIVE = re.compile(rf"= (.*?) ({COLLECTIVES})(-start)?\((.*)")
CHANNEL = re.compile(r"channel_id=(\d+)")
ARRAY = re.compile(r"\b(pred|bf|[fsuc])(\d*)\w*\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line: bytes of its result, names of its operands, of a parameter its number."""

    op: str
    size: int
    operands: list[str]
    attributes: str
    root: bool


class Work(NamedTuple):
    """How many kernels run, and how many bytes they read and write."""

    kernels: int
    bytes: int


def parsed(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """The computations of a program by name, each as instructions by name; the entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = ""
    for line in text.splitlines():
        if heading := COMPUTATION.match(line):
            here = computations.setdefault(heading[2], {})
            entry = heading[2] if heading[1] else entry
        elif found := INSTRUCTION.match(line):
            root, name, result, op, rest = found.groups()
            inside, _, attributes = rest.partition(")")
            names = re.findall(r"%([\w.\-]+)", inside)
            operands = [inside] if op == "parameter" else names
            here[name] = Instruction(op, size(result), operands, attributes, bool(root))
    return computations, entry


def size(arrays: str) -> int:
    """Bytes of the arrays in a text.

    >>> size("(f32[2,3]{1,0}, bf16[4], pred[])")
    33
    """
    bits = 0
    for kind, width, dims in ARRAY.findall(arrays):
        shape = [int(n) for n in dims.split(",") if n]
        bits += int(BITS.get(kind) or width) * int(np.prod(shape))
    return bits // 8


def work(text: str) -> Work:
    """The kernels of a program and the bytes that they move, loops as often as they run.

    A kernel reads its operands and writes its result; of those that it slices, or
    updates in place, the slices alone.
    """
    computations, entry = parsed(text)

    def of(name: str) -> Work:
        kernels, moved = 0, 0
        here = computations[name]
        for line in here.values():
            inner = INNER.search(line.attributes)
            if line.op in FREE or line.op.endswith("-done"):
                continue
            if inner and line.op in ("while", "call", "conditional"):
                trips = TRIPS.search(line.attributes)
                times, done = int(trips[1]) if trips else 1, of(inner[1])
                kernels, moved = kernels + times * done[0], moved + times * done[1]
                continue
            fused = computations[inner[1]] if inner and line.op == "fusion" else {}
            named = {x.operands[0]: k for k, x in fused.items() if x.op == "parameter"}
            kernels += 1
            moved += written(fused) if fused else line.size
            for number, operand in enumerate(line.operands):
                whole = here[operand].size if operand in here else 0
                part = read(fused, named[str(number)]) if fused else whole
                moved += min(whole, part)
        return Work(kernels, moved)

    return of(entry)


def read(fused: dict[str, Instruction], name: str) -> int:
    """Bytes that the instructions of a fusion read of one of its values."""
    total = 0
    for other, line in fused.items():
        if name not in line.operands:
            continue
        if line.op in VIEWS:
            total += read(fused, other)
        elif line.op in SLICES:
            total += line.size
        elif line.op != "dynamic-update-slice" or line.operands[0] != name:
            return fused[name].size
    return total


def written(fused: dict[str, Instruction]) -> int:
    """Bytes that a fusion writes."""

    def of(line: Instruction) -> int:
        if line.op in VIEWS:
            return sum(of(fused[operand]) for operand in line.operands)
        update = line.op == "dynamic-update-slice"
        return fused[line.operands[1]].size if update else line.size

    return next(of(line) for line in fused.values() if line.root)


def exchanged(text: str) -> dict[str, list[int]]:
    """Of each kind of collective in a program, the bytes of every result.

    A collective that is taken apart, to be done beside other kernels, is written several
    times, each time with the same channel: it counts once.
    """
    once: dict[Any, tuple[str, int]] = {}
    for number, (result, kind, async_, rest) in enumerate(COLLECTIVE.findall(text)):
        channel = CHANNEL.search(rest)
        # Of one that is started here, the operands come before the results.
        parts = re.findall(r"\([^()]*\)|\w+\[[\d,]*\]", result.removeprefix("("))
        if async_ and kind in ("all-gather", "collective-permute") and len(parts) > 1:
            result = parts[1]
        once.setdefault(channel[1] if channel else number, (kind, size(result)))
    found: dict[str, list[int]] = {}
    for kind, in_bytes in once.values():
        found.setdefault(kind, []).append(in_bytes)
    return found
