"""Evaluates a traced function and hands out values that it computes on the way."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    jaxpr_as_fun,
    jaxprs_in_params,
)

from convsim_jax._convolution import bias_of, convolved, lone_convolution
from convsim_jax._trace import split_scan

# As in `_trace.Convolution`: number of an equation, of its body, of an equation in it...
Position: TypeAlias = tuple[int, ...]
# What calls its one body once, and whether it computes it again for the gradient.
_CALLS = dict.fromkeys(("jit", "pjit", "closed_call", "core_call"), False)
_CALLS |= dict.fromkeys(("checkpoint", "remat", "remat2"), True)
Taps: TypeAlias = Mapping[Position, str]
Evaluated: TypeAlias = tuple[list[Any], dict[str, list[jax.Array]]]


def evaluate(
    program: ClosedJaxpr, taps: Taps, stop_gradient: bool, *arguments: Any
) -> Evaluated:
    """Results of a program, and by name what it computes at certain places.

    At a convolution that is its result, channels last and with the bias that is added to
    it, which with `stop_gradient` does not depend on its images; elsewhere an equation's
    only result. Each has a list of them: out of a `scan` one for each index, and zero out
    of a branch of `cond` that is not taken.

    Raises:
      ValueError: A place is inside something out of which nothing can be handed.
    """
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.constvars, program.consts, strict=True))
    known |= zip(jaxpr.invars, arguments, strict=True)
    last_use = {
        v: n for n, equation in enumerate(jaxpr.eqns) for v in _variables(equation.invars)
    }
    last_use |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    found: dict[str, list[jax.Array]] = {}
    biases: dict[int, tuple[str, int]] = {}
    for number, equation in enumerate(jaxpr.eqns):
        operands = [value(variable) for variable in equation.invars]
        inside = _inside(taps, number)
        if convolution := inside and lone_convolution(equation):
            (name,) = inside.values()
            compute = partial(_evaluated, jaxpr, equation)
            results, maps = convolved(compute, operands, *convolution, stop_gradient)
            found[name] = [maps]
            if bias := bias_of(jaxpr, number, maps.shape[-1]):
                biases[bias[0]] = name, bias[1]
        elif inside and () not in inside:
            results, more = _rebuilt(equation, inside, stop_gradient, operands)
            found |= more
        else:
            results = _evaluated(jaxpr, equation, operands)
            found |= {name: [results[0]] for name in inside.values()}
        if number in biases:
            name, operand = biases[number]
            (maps,) = found[name]
            ones = (1,) * (maps.ndim - 1)
            found[name] = [maps + jnp.reshape(operands[operand], (*ones, -1))]
        known.update(zip(equation.outvars, results, strict=True))
        for variable in _variables(equation.invars):  # not to hold what is of no more use
            if last_use[variable] == number:
                del known[variable]
    return [value(variable) for variable in jaxpr.outvars], found


def names(program: Jaxpr, position: Position = ()) -> Iterator[tuple[Position, JaxprEqn]]:
    """Where a program applies `jax.ad_checkpoint.checkpoint_name`, and how."""
    for number, equation in enumerate(program.eqns):
        if equation.primitive.name == "name":
            yield (*position, number), equation
        for body, inner in enumerate(jaxprs_in_params(equation.params)):
            yield from names(inner, (*position, number, body))


def _variables(operands: Iterable[Var | Literal]) -> set[Var]:
    return {x for x in operands if not isinstance(x, Literal)}


def _inside(taps: Taps, number: int) -> Taps:
    return {place[1:]: name for place, name in taps.items() if place[0] == number}


def _evaluated(jaxpr: Jaxpr, equation: JaxprEqn, operands: list[Any]) -> list[Any]:
    pairs = zip(equation.invars, operands, strict=True)
    given = {v: operand for v, operand in pairs if not isinstance(v, Literal)}
    alone = jaxpr.replace(
        constvars=[], invars=list(given), outvars=equation.outvars, eqns=[equation]
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values())


def _rebuilt(
    equation: JaxprEqn, taps: Taps, stop_gradient: bool, operands: list[Any]
) -> Evaluated:
    """An equation that holds taps: built again, with what they hand out as results."""
    name, params = equation.primitive.name, equation.params

    def body(jaxpr: ClosedJaxpr | Jaxpr, number: int = 0) -> Callable[..., Evaluated]:
        program = ClosedJaxpr(jaxpr, ()) if isinstance(jaxpr, Jaxpr) else jaxpr
        return partial(evaluate, program, _inside(taps, number), stop_gradient)

    if name == "scan":
        consts, carry, xs = split_scan(equation, operands)
        one_pass = body(params["jaxpr"])

        def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], Any]:
            results, found = one_pass(*consts, *carry, *x)
            return results[: len(carry)], (results[len(carry) :], found)

        options = {key: params[key] for key in ("length", "reverse", "unroll")}
        carry, (ys, stacked) = lax.scan(step, carry, xs, **options)
        found = {
            name: [
                lax.index_in_dim(x, index, keepdims=False)
                for index in range(options["length"])
                for x in passes
            ]
            for name, passes in stacked.items()
        }
        return [*carry, *ys], found
    if name == "cond":
        index, *operands = operands
        branches = [body(branch, n) for n, branch in enumerate(params["branches"])]
        shapes: dict[str, Any] = {}
        for branch in branches:
            shapes |= jax.eval_shape(branch, *operands)[1]

        def with_zeros(branch: Callable[..., Evaluated], *operands: Any) -> Evaluated:
            results, found = branch(*operands)
            return results, jax.tree.map(jnp.zeros_like, shapes) | found

        return lax.switch(index, [partial(with_zeros, b) for b in branches], *operands)
    if name not in _CALLS:
        raise ValueError(
            f"the feature maps of {', '.join(taps.values())} cannot be handed out of the "
            f"{name} in which they are computed; out of jit, checkpoint, scan and cond "
            "they can"
        )
    call = body(next(x for x in params.values() if isinstance(x, Jaxpr | ClosedJaxpr)))
    if _CALLS[name]:
        options = {key: params[key] for key in ("prevent_cse", "policy")}
        call = jax.checkpoint(call, **options)
    return call(*operands)
