"""A convolution in a traced program: its maps, and what they depend on."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from convsim_jax._trace import shape_of


def lone_convolution(equation: JaxprEqn) -> tuple[JaxprEqn, int, int] | None:
    """A convolution, be it the only equation in a function with rules of its own.

    Returns:
      The convolution, and which operands of `equation` are its images and its kernel.
    """
    name, bodies = equation.primitive.name, list(jaxprs_in_params(equation.params))
    if name == "conv_general_dilated":
        return equation, 0, 1
    if not name.startswith("custom_") or len(bodies) != 1 or len(bodies[0].eqns) != 1:
        return None
    (body,) = bodies
    found = lone_convolution(body.eqns[0])
    if found is None or body.outvars != body.eqns[0].outvars:
        return None
    inputs = [body.eqns[0].invars[n] for n in found[1:]]
    places = [n for x in inputs for n, y in enumerate(body.invars) if x is y]
    return (found[0], places[0], places[1]) if len(places) == 2 else None


def convolved(
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

        by_kernel = change(lambda k: convolve(images, k), kernel, tangents[1])
        by_images = change(lambda x: convolve(x, kernel), images, tangents[0])
        return (result, result), (by_kernel + by_images, by_kernel)

    return both


def bias_of(jaxpr: Jaxpr, number: int, channels: int) -> tuple[int, int] | None:
    """Which equation adds a number a channel to a convolution, as which operand.

    Of maps of one pixel it cannot be told: what is added to them may be other maps.
    """
    (result,) = jaxpr.eqns[number].outvars
    if math.prod(shape_of(result)) == channels:
        return None
    for later, equation in enumerate(jaxpr.eqns[number + 1 :], number + 1):
        if all(variable is not result for variable in equation.invars):
            continue
        if equation.primitive.name == "add":
            for n, variable in enumerate(equation.invars):
                if variable is not result and math.prod(shape_of(variable)) == channels:
                    return later, n
        if equation.primitive.name not in ("reshape", "squeeze", "transpose"):
            return None
        (result,) = equation.outvars
    return None
