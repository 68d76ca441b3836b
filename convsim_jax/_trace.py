"""Finds the convolutions of a traced function, and the parameter each kernel comes from.

Every value of the program is followed back to the leaves of its parameters. What is known
of a value is its `Origin`: one leaf, and which of the leaf's axes stand along each of its
own. Transposing, reshaping, reversing, casting and the picking of one entry of a stack
keep it. Of two operands of an elementwise operation it is the origin of the one that
holds more of its leaf: a kernel times a scale, less a mean, or over a norm is still that
kernel. Two whole leaves of one shape, products of matrices, concatenations, paddings and
parts of an axis have no single origin.
"""

import math
from collections.abc import Callable, Sequence
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
      position: Where it is: the number of the equation that holds it and the number of
        that equation's body (a branch of `cond`, else 0), again for each level, and its
        own number last.
      equation: The equation itself.
      kernel: Origin of its kernel.
      times: How often it runs: the product of the lengths of the scans around it. A
        `while` loop counts as one pass.
    """

    position: tuple[int, ...]
    equation: JaxprEqn
    kernel: Origin
    times: int


Value: TypeAlias = Origin | None  # None: it depends on no leaf
Visit: TypeAlias = Callable[[Convolution], None]

_MIXED = Origin(None)
# fmt: off
_UNARY = {
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
    """The convolutions whose kernel depends on one of the program's first arguments.

    They are found at any depth: in `jit`, `scan`, `while`, `cond`, `checkpoint`,
    `custom_jvp`, `custom_vjp`, `shard_map` and whatever else calls one body.

    Args:
      program: What `jax.make_jaxpr` returns.
      leaves: How many of its arguments, from the first on, are the leaves.
    """
    found: list[Convolution] = []
    arguments: list[Value] = [
        _whole(number, shape_of(variable))
        for number, variable in enumerate(program.jaxpr.invars[:leaves])
    ]
    arguments += [None] * (len(program.jaxpr.invars) - leaves)
    _walk(program.jaxpr, arguments, found.append, (), 1)
    return found


def _whole(leaf: int, shape: Sequence[int]) -> Origin:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    factors = zip(shape, strides, strict=True)
    return Origin(leaf, (), tuple((f,) if f[0] != 1 else () for f in factors))


def _walk(
    jaxpr: Jaxpr,
    arguments: Sequence[Value],
    visit: Visit | None,
    position: tuple[int, ...],
    times: int,
) -> list[Value]:
    """Origins of a body's results; every convolution on the way is visited."""
    known: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))

    def origin(variable: Any) -> Value:
        return None if isinstance(variable, Literal) else known.get(variable)

    for number, equation in enumerate(jaxpr.eqns):
        operands = [origin(variable) for variable in equation.invars]
        if all(operand is None for operand in operands):
            continue
        here = (*position, number)
        results = _results(equation, operands, visit, here, times)
        known.update(zip(equation.outvars, results, strict=True))
        if equation.primitive.name == "conv_general_dilated" and visit:
            kernel = operands[1]
            if kernel is not None:
                visit(Convolution(here, equation, kernel, times))
    return [origin(variable) for variable in jaxpr.outvars]


def _results(
    equation: JaxprEqn,
    operands: list[Value],
    visit: Visit | None,
    position: tuple[int, ...],
    times: int,
) -> list[Value]:
    name, params = equation.primitive.name, equation.params

    def body(
        jaxpr: ClosedJaxpr,
        values: list[Value],
        visit: Visit | None = visit,
        number: int = 0,
    ) -> list[Value]:
        length = params.get("length", 1)
        return _walk(jaxpr.jaxpr, values, visit, (*position, number), times * length)

    if name == "scan":
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, carry = operands[:first], operands[first:last]
        xs = [x and _one_entry(x, 0, drop=True) for x in operands[last:]]
        loop = params["jaxpr"]
        carry = _fixed_point(lambda c: body(loop, consts + c + xs, None), carry)
        results = body(loop, consts + carry + xs)
        stacked = [y and _MIXED for y in results[len(carry) :]]
        return [*carry, *stacked]
    if name == "while":
        consts = operands[params["cond_nconsts"] :][: params["body_nconsts"]]
        carry = operands[params["cond_nconsts"] + params["body_nconsts"] :]
        loop = params["body_jaxpr"]
        carry = _fixed_point(lambda c: body(loop, consts + c, None), carry)
        body(loop, consts + carry)
        return carry
    if name == "cond":
        branches = [
            body(branch, operands[1:], number=number)
            for number, branch in enumerate(params["branches"])
        ]
        return [_agreed(results) for results in zip(*branches, strict=True)]
    bodies = list(jaxprs_in_params(params))
    if len(bodies) == 1 and len(bodies[0].invars) == len(operands):
        inner = bodies[0]
        values = list(map(_if_one_shape, operands, equation.invars, inner.invars))
        results = _walk(inner, values, visit, (*position, 0), times)
        return list(map(_if_one_shape, results, inner.outvars, equation.outvars))
    if name in _UNARY:
        return operands
    tainted = any(operand is not None for operand in operands)
    if len(equation.outvars) > 1 or not tainted:
        return [_MIXED if tainted else None] * len(equation.outvars)
    return [_result(equation, operands)]


def _result(equation: JaxprEqn, operands: list[Value]) -> Origin:
    """Of an equation with one result, that depends on a leaf."""
    name, params = equation.primitive.name, equation.params
    shape = shape_of(equation.outvars[0])
    if name in _ELEMENTWISE:
        known = [
            operand
            for operand, variable in zip(operands, equation.invars, strict=True)
            if operand is not None and shape_of(variable) == shape
        ]
        largest = max((operand.size for operand in known), default=0)
        return _agreed([o for o in known if o.size == largest]) or _MIXED
    source = operands[0]
    if source is None or source.leaf is None:
        return _MIXED
    before = shape_of(equation.invars[0])
    if name == "transpose":
        return _transposed(source, params["permutation"])
    if name == "reshape":  # vmap asks for a transposition with it
        return _reshaped(_transposed(source, params["dimensions"]), shape)
    if name == "squeeze":
        return _without(source, params["dimensions"])
    if name == "broadcast_in_dim":
        axes: list[tuple[Factor, ...] | None] = [() if n == 1 else None for n in shape]
        for axis, target in enumerate(params["broadcast_dimensions"]):
            if before[axis] == shape[target]:
                axes[target] = source.axes[axis]
        return source._replace(axes=tuple(axes))
    if name in ("slice", "dynamic_slice"):
        for axis, (n, kept) in enumerate(zip(before, shape, strict=True)):
            if kept not in (1, n):
                return _MIXED
            if kept < n:
                source = _one_entry(source, axis)
        return source
    if name.startswith("reduce_") and "axes" in params:
        return _without(source, params["axes"])
    return _MIXED


def _transposed(origin: Origin, order: Sequence[int] | None) -> Origin:
    if order is None:
        return origin
    return origin._replace(axes=tuple(origin.axes[axis] for axis in order))


def _without(origin: Origin, dropped: Sequence[int]) -> Origin:
    axes = (axis for number, axis in enumerate(origin.axes) if number not in dropped)
    return origin._replace(axes=tuple(axes))


def _one_entry(origin: Origin, axis: int, drop: bool = False) -> Origin:
    """One entry along an axis, which is left as one of size 1 or dropped."""
    if origin.leaf is None:
        return origin
    left: tuple[tuple[Factor, ...], ...] = () if drop else ((),)
    axes = (*origin.axes[:axis], *left, *origin.axes[axis + 1 :])
    return origin._replace(stack=origin.stack + (origin.axes[axis] or ()), axes=axes)


def _reshaped(origin: Origin, shape: Sequence[int]) -> Origin:
    """The leaf's axes dealt out to the new ones; an axis is split where it has to be."""
    if any(axis is None for axis in origin.axes):
        return _MIXED
    factors = [factor for axis in origin.axes for factor in axis or ()][::-1]
    axes = []
    for n in shape:
        axis = []
        while n > 1:
            size, stride = factors.pop()
            common = math.gcd(n, size)
            if common not in (n, size):
                return _MIXED
            axis.append((common, stride * (size // common)))
            if common < size:
                factors.append((size // common, stride))
            n //= common
        axes.append(tuple(axis))
    return origin._replace(axes=tuple(axes))


def _fixed_point(
    step: Callable[[list[Value]], list[Value]], carry: list[Value]
) -> list[Value]:
    """What is true of a loop's carry on entry and after every pass."""
    while True:
        results = step(carry)
        agreed = [
            _agreed(pair) for pair in zip(carry, results[: len(carry)], strict=True)
        ]
        if agreed == carry:
            return carry
        carry = agreed


def _agreed(values: Sequence[Value]) -> Value:
    """What all are, or a mixture."""
    same = all(value == values[0] for value in values)
    return values[0] if values and same else _MIXED if values else None


def _if_one_shape(value: Value, outside: Any, inside: Any) -> Value:
    """Inside `shard_map` a sharded value has another shape."""
    return value if shape_of(outside) == shape_of(inside) else value and _MIXED


def shape_of(variable: Any) -> tuple[int, ...]:
    """Of what stands in an equation."""
    return variable.aval.shape
