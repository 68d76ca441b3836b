"""Evaluates a traced function and hands out values that it computes on the way."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Literal,
    jaxpr_as_fun,
    jaxprs_in_params,
)

from convsim_jax._trace import shape_of

# As in `_trace.Convolution`: number of an equation, of its body, of an equation in it...
Position: TypeAlias = tuple[int, ...]
# What calls its one body once, and whether it computes it again for the gradient.
_CALLS = dict.fromkeys(("jit", "pjit", "closed_call", "core_call"), False)
_CALLS |= dict.fromkeys(("checkpoint", "remat", "remat2"), True)
Taps: TypeAlias = Mapping[Position, str]
Evaluated: TypeAlias = tuple[list[Any], dict[str, jax.Array]]


def evaluate(
    program: ClosedJaxpr | Jaxpr, taps: Taps, stop_gradient: bool, *arguments: Any
) -> Evaluated:
    """Results of a program, and what it computes at certain places.

    Args:
      program: What `jax.make_jaxpr` returns, or the body of an equation in it.
      taps: A name for each place. At a convolution its result is handed out, channels
        last and with the bias that is added to it; elsewhere an equation's only result.
      stop_gradient: Whether the result of a convolution, as it is handed out, depends on
        its kernel and not on its images.
      *arguments: Those of the program.

    Returns:
      The results, and what is handed out by its name. Out of a `scan` it comes stacked,
      and zero out of a branch of `cond` that is not taken.

    Raises:
      ValueError: A place is inside something out of which nothing can be handed.
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    consts = program.consts if isinstance(program, ClosedJaxpr) else []
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, arguments, strict=True)

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    found: dict[str, jax.Array] = {}
    biases = {}
    for number, equation in enumerate(jaxpr.eqns):
        operands = [value(variable) for variable in equation.invars]
        inside = _inside(taps, number)
        if convolution := inside and _lone_convolution(equation):
            (name,) = inside.values()
            compute = partial(_evaluated, jaxpr, equation)
            results, maps = _convolved(compute, operands, *convolution, stop_gradient)
            found[name] = maps
            biases[name] = _bias(jaxpr, number, maps.shape[-1])
        elif () in inside:
            results = _evaluated(jaxpr, equation, operands)
            found[inside[()]] = results[0]
        elif inside:
            results, more = _of_bodies(equation, inside, stop_gradient, operands)
            found |= more
        else:
            results = _evaluated(jaxpr, equation, operands)
        known.update(zip(equation.outvars, results, strict=True))
    for name, bias in biases.items():
        if bias is not None:
            ones = [1] * (found[name].ndim - 1)
            found[name] = found[name] + value(bias).reshape(*ones, -1)
    return [value(variable) for variable in jaxpr.outvars], found


def names(program: Jaxpr, position: Position = ()) -> Iterator[tuple[Position, JaxprEqn]]:
    """Where a program applies `jax.ad_checkpoint.checkpoint_name`, and how."""
    for number, equation in enumerate(program.eqns):
        if equation.primitive.name == "name":
            yield (*position, number), equation
        for body, inner in enumerate(jaxprs_in_params(equation.params)):
            yield from names(inner, (*position, number, body))


def _inside(taps: Taps, number: int) -> Taps:
    return {place[1:]: name for place, name in taps.items() if place[0] == number}


def _evaluated(jaxpr: Jaxpr, equation: JaxprEqn, operands: list[Any]) -> list[Any]:
    given = {
        variable: operand
        for variable, operand in zip(equation.invars, operands, strict=True)
        if not isinstance(variable, Literal)
    }
    alone = jaxpr.replace(
        constvars=[], invars=list(given), outvars=equation.outvars, eqns=[equation]
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values())


def _of_bodies(
    equation: JaxprEqn, taps: Taps, stop_gradient: bool, operands: list[Any]
) -> Evaluated:
    """An equation that holds taps: built again, with what they hand out as results."""
    name, params = equation.primitive.name, equation.params

    def body(program: ClosedJaxpr | Jaxpr, number: int = 0) -> Callable[..., Evaluated]:
        return partial(evaluate, program, _inside(taps, number), stop_gradient)

    if name == "scan":
        consts = params["num_consts"]
        xs = consts + params["num_carry"]
        of_one_pass = body(params["jaxpr"])

        def one_pass(carry: list[Any], x: list[Any]) -> tuple[list[Any], Any]:
            results, found = of_one_pass(*operands[:consts], *carry, *x)
            return results[: len(carry)], (results[len(carry) :], found)

        options = {key: params[key] for key in ("length", "reverse", "unroll")}
        carry, (ys, found) = lax.scan(
            one_pass, operands[consts:xs], operands[xs:], **options
        )
        return [*carry, *ys], found
    if name == "cond":
        index, *operands = operands
        branches = [body(branch, n) for n, branch in enumerate(params["branches"])]
        shapes: dict[str, Any] = {}
        for branch in branches:
            shapes |= jax.eval_shape(branch, *operands)[1]

        def with_zeros(branch: Callable[..., Evaluated], *operands: Any) -> Evaluated:
            results, found = branch(*operands)
            return results, {
                name: found.get(name, jnp.zeros(x.shape, x.dtype))
                for name, x in shapes.items()
            }

        return lax.switch(index, [partial(with_zeros, b) for b in branches], *operands)
    if name not in _CALLS:
        raise ValueError(
            f"the feature maps of {', '.join(taps.values())} cannot be handed out of the "
            f"{name} in which they are computed; out of jit, checkpoint, scan and cond "
            "they can"
        )
    program = next(x for x in params.values() if isinstance(x, Jaxpr | ClosedJaxpr))
    call = body(program)
    if _CALLS[name]:
        options = {key: params[key] for key in ("prevent_cse", "policy")}
        call = jax.checkpoint(call, **options)
    return call(*operands)


def _convolved(
    compute: Callable[[list[Any]], list[Any]],
    operands: list[Any],
    convolution: JaxprEqn,
    images: int,
    kernel: int,
    stop_gradient: bool,
) -> tuple[list[Any], jax.Array]:
    """What `compute` makes of the operands, and that with channels last."""

    def convolve(*inputs: jax.Array) -> jax.Array:
        all_operands = list(operands)
        all_operands[images], all_operands[kernel] = inputs
        return compute(all_operands)[0]

    inputs = operands[images], operands[kernel]
    if stop_gradient:
        result, maps = _apart_from_images(convolve)(*inputs)
    else:
        result = maps = convolve(*inputs)
    batch, channels, *spatial = convolution.params["dimension_numbers"].out_spec
    return [result], jnp.transpose(maps, (batch, *spatial, channels))


def _apart_from_images(convolve: Callable[..., jax.Array]) -> Callable[..., Any]:
    """The result of a convolution, and again as it depends on the kernel alone.

    As two convolutions, of images and of these with stopped gradient, they would take two
    gradients of the kernel. Here both slopes are summed first.
    """

    @jax.custom_jvp
    def both(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        result = convolve(images, kernel)
        return result, result

    @partial(both.defjvp, symbolic_zeros=True)
    def derivative(primals: Any, tangents: Any) -> Any:
        images, kernel = primals
        result = convolve(images, kernel)

        def change(of: Callable[..., jax.Array], primal: Any, tangent: Any) -> jax.Array:
            if isinstance(tangent, SymbolicZero):
                return jnp.zeros_like(result)
            return jax.jvp(of, (primal,), (tangent,))[1]

        of_kernel = change(lambda k: convolve(images, k), kernel, tangents[1])
        of_images = change(lambda x: convolve(x, kernel), images, tangents[0])
        return (result, result), (of_kernel + of_images, of_kernel)

    return both


def _lone_convolution(equation: JaxprEqn) -> tuple[JaxprEqn, int, int] | None:
    """A convolution, be it the only equation in a function with rules of its own.

    Returns:
      The convolution, and which operands of `equation` are its images and its kernel.
    """
    name, bodies = equation.primitive.name, list(jaxprs_in_params(equation.params))
    if name == "conv_general_dilated":
        return equation, 0, 1
    if not name.startswith("custom_") or len(bodies) != 1 or len(bodies[0].eqns) != 1:
        return None
    (inner,) = bodies[0].eqns
    found = _lone_convolution(inner)
    if found is None or bodies[0].outvars != inner.outvars:
        return None
    convolution, *inputs = found
    arguments = list(map(id, bodies[0].invars))
    images, kernel = (id(inner.invars[n]) for n in inputs)
    if images not in arguments or kernel not in arguments:
        return None
    return convolution, arguments.index(images), arguments.index(kernel)


def _bias(jaxpr: Jaxpr, number: int, channels: int) -> Any:
    """The variable with a number a channel that is added to a convolution's result."""
    (result,) = jaxpr.eqns[number].outvars
    for equation in jaxpr.eqns[number + 1 :]:
        if all(variable is not result for variable in equation.invars):
            continue
        if equation.primitive.name in ("reshape", "squeeze", "transpose"):
            (result,) = equation.outvars
            continue
        if equation.primitive.name == "add":
            for variable in equation.invars:
                shape = shape_of(variable)
                if variable is not result and math.prod(shape) == channels:
                    return variable
        return None
    return None
