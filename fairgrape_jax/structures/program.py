"""A traced function as one flat list of equations: what is followed, counted, and run smaller."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.extend.core
import numpy as np

# The number of a value in the list of a program's values, or a constant of no axes.
Atom: TypeAlias = "int | Scalar"

# Calls of inner programs, and where these are.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A literal of a program.

    Attributes:
        value: its number.
    """

    value: Any


@dataclasses.dataclass(frozen=True)
class Equation:
    """One operation.

    Attributes:
        name: of the primitive, or "relu", which is kept whole for the sake of its gradient at 0.
        call: (*arrays, **params) to an array or a list of them.
        params: static arguments, shapes among them.
        inputs: what it is applied to.
        outputs: the numbers of its results.
    """

    name: str
    call: Callable[..., Any]
    params: dict[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """A function without calls of others.

    Attributes:
        shapes: of every value, by its number.
        inputs: the numbers of its arguments.
        outputs: its results.
        constants: arrays that it holds, by number.
        equations: in the order of their execution.
    """

    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[int, ...]
    outputs: tuple[Atom, ...]
    constants: dict[int, Any]
    equations: tuple[Equation, ...]


def trace(function: Callable[..., Any], *args: Any) -> tuple[Program, Any]:
    """The program of a function, and the tree of its results.

    Args:
        function: of pytrees of arrays.
        args: arrays, or their shapes and dtypes.

    Returns:
        The program, whose inputs are the leaves of all arguments, and the results as shapes.

    Example:
        >>> program, result = trace(lambda w, x: jax.nn.relu(x @ w), np.ones((3, 2)), np.ones(3))
        >>> [equation.name for equation in program.equations], result.shape
        (['dot_general', 'relu'], (2,))
    """
    closed, result = jax.make_jaxpr(function, return_shape=True)(*args)
    return flatten(closed), result


def flatten(closed: Any) -> Program:
    """A closed jaxpr with the programs that it calls put in their places.

    Args:
        closed: as `jax.make_jaxpr` gives it.
    """
    shapes: list[tuple[int, ...]] = []
    constants: dict[int, Any] = {}
    equations: list[Equation] = []

    def value(variable: Any) -> int:
        shapes.append(tuple(getattr(variable.aval, "shape", ())))
        return len(shapes) - 1

    def walk(
        jaxpr: jax.extend.core.Jaxpr, consts: Sequence[Any], args: Sequence[Atom]
    ) -> list[Atom]:
        atoms: dict[Any, Atom] = dict(zip(jaxpr.invars, args, strict=True))
        for variable, constant in zip(jaxpr.constvars, consts, strict=True):
            atoms[variable] = number = value(variable)
            constants[number] = constant

        def read(atom: Any) -> Atom:
            return Scalar(atom.val) if hasattr(atom, "val") else atoms[atom]

        for eqn in jaxpr.eqns:
            inputs, name = tuple(map(read, eqn.invars)), eqn.primitive.name
            key = CALLS.get(name, "")
            relu = name == "custom_jvp_call" and _is_relu(eqn.params["call_jaxpr"].jaxpr)
            if key in eqn.params and not relu:
                inner = eqn.params[key]
                open_jaxpr = getattr(inner, "jaxpr", inner)
                results = walk(open_jaxpr, getattr(inner, "consts", ()), inputs)
                atoms.update(zip(eqn.outvars, results, strict=True))
                continue
            outputs = tuple(map(value, eqn.outvars))
            atoms.update(zip(eqn.outvars, outputs, strict=True))
            call, params = (jax.nn.relu, {}) if relu else (eqn.primitive.bind, dict(eqn.params))
            equations.append(Equation("relu" if relu else name, call, params, inputs, outputs))
        return list(map(read, jaxpr.outvars))

    inputs = [value(variable) for variable in closed.jaxpr.invars]
    outputs = walk(closed.jaxpr, closed.consts, inputs)
    return Program(tuple(shapes), tuple(inputs), tuple(outputs), constants, tuple(equations))


def _is_relu(jaxpr: jax.extend.core.Jaxpr) -> bool:
    """Whether this is `jax.nn.relu`, whose derivative at 0 is not that of a maximum."""
    while len(jaxpr.eqns) == 1 and jaxpr.eqns[0].primitive.name in ("jit", "pjit"):
        jaxpr = jaxpr.eqns[0].params["jaxpr"].jaxpr
    if len(jaxpr.eqns) != 1 or len(jaxpr.invars) != 1:
        return False
    (eqn,) = jaxpr.eqns
    second = getattr(eqn.invars[-1], "val", None)
    return (
        eqn.primitive.name == "max" and second is not None and bool(np.all(np.asarray(second) == 0))
    )
