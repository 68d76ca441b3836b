"""Finds the convolutions of a traced function, and the parameter each kernel comes from.

What is known of a value is its `Origin`: one leaf of the parameters, and which of the
leaf's axes stand along each of its own. Transposing, reshaping, reversing, casting and
the picking of one entry of a stack keep it. Of operands of an elementwise operation the
origin is that of the one that holds more of its leaf: a kernel times a scale, less a
mean, or over a norm is still that kernel. Others have no single origin.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

# Size, and stride within the leaf's row-major order.
Factor: TypeAlias = tuple[int, int]


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
      leaf: Number of the leaf; None where it is no single one.
      stack: The leaf's axes of which the value has one entry.
      axes: For each axis of the value the axes of the leaf, or parts of them, that are
        merged in it; None along an axis over which the value was broadcast.
    """

    leaf: int | None
    stack: tuple[Factor, ...] = ()
    axes: tuple[tuple[Factor, ...] | None, ...] = ()

    def with_axes(self, axes: Iterable[tuple[Factor, ...] | None]) -> "Origin":
        """The same part of the leaf, its axes standing elsewhere."""
        return self._replace(axes=tuple(axes))

    @property
    def size(self) -> int:
        """How many of the leaf's entries stand in the value and its stack."""
        if self.leaf is None:
            return 0
        factors = [factor for axis in self.axes for factor in axis or ()]
        return math.prod(size for size, _ in (*self.stack, *factors))


class Convolution(NamedTuple):
    """One `conv_general_dilated` of the program.

    Attributes:
      position: The number of the equation that holds it and of that equation's body (a
        branch of `cond`, else 0), again for each level, and its own number last.
      equation: The equation itself.
      kernel: Origin of its kernel.
      times: How often it runs; a `while` loop counts as one pass.
    """

    position: tuple[int, ...]
    equation: JaxprEqn
    kernel: Origin
    times: int


Value: TypeAlias = Origin | None  # None: it depends on no leaf

_MIXED = Origin(None)
# fmt: off
_SAME_ENTRIES = {
    "copy", "copy_p", "device_put", "mesh_cast", "optimization_barrier", "pcast", "pvary",
    "reshard", "rev", "sharding_constraint", "stop_gradient",
}
_ELEMENTWISE = {
    "abs", "add", "add_any", "atan", "atan2", "cbrt", "ceil", "clamp",
    "convert_element_type", "cos", "cosh", "div", "erf", "exp", "exp2", "expm1", "floor",
    "integer_pow", "log", "log1p", "logistic", "max", "min", "mul", "neg", "pow",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
    "sqrt", "square", "sub", "tan", "tanh",
}
# fmt: on


def convolutions(program: ClosedJaxpr, leaves: int) -> list[Convolution]:
    """Those whose kernel depends on one of the first arguments, `leaves` in number.

    They are found in `scan`, `while`, `cond` and whatever else calls one body.
    """
    found: list[Convolution] = []
    arguments: list[Value] = [
        _whole(number, aval.shape) if number < leaves else None
        for number, aval in enumerate(program.in_avals)
    ]
    _walk(program.jaxpr, arguments, found, (), 1)
    return found


def _whole(leaf: int, shape: Sequence[int]) -> Origin:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    factors = zip(shape, strides, strict=True)
    return Origin(leaf, (), tuple((f,) if f[0] != 1 else () for f in factors))


def _walk(
    jaxpr: Jaxpr,
    arguments: Sequence[Value],
    found: list[Convolution],
    position: tuple[int, ...],
    times: int,
) -> list[Value]:
    """Origins of a body's results; its convolutions are added to those found."""
    known: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))

    def origin(variable: Any) -> Value:
        return None if isinstance(variable, Literal) else known.get(variable)

    for number, equation in enumerate(jaxpr.eqns):
        operands = [origin(variable) for variable in equation.invars]
        if not any(operands):
            continue
        here = (*position, number)
        results = _through_bodies(equation, operands, found, here, times)
        if equation.primitive.name in _SAME_ENTRIES:
            results = operands
        elif results is None:
            alone = len(equation.outvars) == 1
            one = _result(equation, operands) if alone else _MIXED
            results = [one] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
        if equation.primitive.name == "conv_general_dilated" and operands[1]:
            found.append(Convolution(here, equation, operands[1], times))
    return [origin(variable) for variable in jaxpr.outvars]


def _through_bodies(
    equation: JaxprEqn,
    operands: list[Value],
    found: list[Convolution],
    position: tuple[int, ...],
    times: int,
) -> list[Value] | None:
    """Origins of what a loop, a branching or a call results in; None of others."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        branches = [
            _walk(branch.jaxpr, operands[1:], found, (*position, number), times)
            for number, branch in enumerate(params["branches"])
        ]
        return [_agreed(results) for results in zip(*branches, strict=True)]
    if name in ("scan", "while"):
        if name == "scan":
            loop, passes = params["jaxpr"].jaxpr, times * params["length"]
            consts, carry, xs = split_scan(equation, operands)
        else:
            loop, passes = params["body_jaxpr"].jaxpr, times
            end = params["cond_nconsts"] + params["body_nconsts"]
            consts, carry, xs = operands[params["cond_nconsts"] : end], operands[end:], []
        entries = [x and _one_entry(x, 0, drop=True) for x in xs]

        def one_pass(carry: list[Value], found: list[Convolution]) -> list[Value]:
            values = consts + carry + entries
            return _walk(loop, values, found, (*position, 0), passes)

        before = None
        while carry != before:  # until it is true on entry and after every pass
            before, results = carry, one_pass(carry, [])
            carry = [_agreed(pair) for pair in zip(carry, results, strict=False)]
        ys = one_pass(carry, found)[len(carry) :]
        return carry + [y and _MIXED for y in ys]
    bodies = list(jaxprs_in_params(params))
    if len(bodies) != 1 or len(bodies[0].invars) != len(operands):
        return None
    values = list(map(_if_one_shape, operands, equation.invars, bodies[0].invars))
    results = _walk(bodies[0], values, found, (*position, 0), times)
    return list(map(_if_one_shape, results, bodies[0].outvars, equation.outvars))


def _result(equation: JaxprEqn, operands: list[Value]) -> Origin:
    """Of an equation that depends on a leaf."""
    name, params = equation.primitive.name, equation.params
    shape = shape_of(equation.outvars[0])
    if name in _ELEMENTWISE:
        known = [
            operand
            for operand, variable in zip(operands, equation.invars, strict=True)
            if operand and shape_of(variable) == shape
        ]
        largest = max((operand.size for operand in known), default=0)
        return _agreed([x for x in known if x.size == largest]) or _MIXED
    source = operands[0]
    if source is None or source.leaf is None:
        return _MIXED
    before, axes = shape_of(equation.invars[0]), source.axes
    if name == "transpose":
        return source.with_axes(axes[axis] for axis in params["permutation"])
    if name == "reshape":  # vmap asks for a transposition with it
        order = params["dimensions"] or range(len(axes))
        return _reshaped(source.with_axes(axes[axis] for axis in order), shape)
    if name == "squeeze" or (name.startswith("reduce_") and "axes" in params):
        dropped = params["dimensions" if name == "squeeze" else "axes"]
        return source.with_axes(x for n, x in enumerate(axes) if n not in dropped)
    if name == "broadcast_in_dim":
        from_axis = {t: n for n, t in enumerate(params["broadcast_dimensions"])}
        return source.with_axes(
            axes[from_axis[t]]
            if t in from_axis and before[from_axis[t]] == n
            else (() if n == 1 else None)
            for t, n in enumerate(shape)
        )
    if name in ("slice", "dynamic_slice"):
        for axis, (n, left) in enumerate(zip(before, shape, strict=True)):
            if left not in (1, n):
                return _MIXED
            if left < n:
                source = _one_entry(source, axis)
        return source
    return _MIXED


def _one_entry(origin: Origin, axis: int, drop: bool = False) -> Origin:
    """One entry along an axis, which is left as one of size 1 or dropped."""
    if origin.leaf is None:
        return origin
    stack, left = origin.stack + (origin.axes[axis] or ()), () if drop else ((),)
    axes = (*origin.axes[:axis], *left, *origin.axes[axis + 1 :])
    return Origin(origin.leaf, stack, axes)


def _reshaped(origin: Origin, shape: Sequence[int]) -> Origin:
    """The leaf's axes dealt out to the new ones; an axis is split where it has to be."""
    if None in origin.axes:
        return _MIXED
    factors = [factor for axis in origin.axes for factor in axis or ()][::-1]
    axes = []
    for n in shape:
        axis: list[Factor] = []
        while n > 1:
            size, stride = factors.pop()
            common = math.gcd(n, size)
            if common not in (n, size):
                return _MIXED
            if common < size:
                factors.append((size // common, stride))
            n, stride = n // common, stride * (size // common)
            if axis and axis[-1][1] == common * stride:  # one stretch of the leaf
                common *= axis.pop()[0]
            axis.append((common, stride))
        axes.append(tuple(axis))
    return origin.with_axes(axes)


def _agreed(values: Sequence[Value]) -> Value:
    """What all are, or a mixture."""
    same = all(value == values[0] for value in values)
    return values[0] if values and same else _MIXED if values else None


def _if_one_shape(value: Value, outside: Any, inside: Any) -> Value:
    """Inside `shard_map` a sharded value has another shape."""
    return value if shape_of(outside) == shape_of(inside) else value and _MIXED


def split_scan(equation: JaxprEqn, operands: list[Any]) -> tuple[list[Any], ...]:
    """The operands of a scan that are constants, carry, and scanned over.

    Only those that are scanned over have an axis more than in the body: so they are told
    apart in every version of JAX.
    """
    body = equation.params["jaxpr"].jaxpr

    def not_scanned(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(shape_of(x)) == len(shape_of(y)) for x, y in pairs)

    last = not_scanned(equation.invars, body.invars)
    first = last - not_scanned(equation.outvars, body.outvars)
    return operands[:first], operands[first:last], operands[last:]


def shape_of(variable: Any) -> tuple[int, ...]:
    """Of what stands in an equation."""
    return variable.aval.shape
