"""Fresh variables of a network, with the bits of its compiled `init` and without compiling it.

Compiled as one program, an initialisation has a generator of random numbers for each shape of a
parameter, and XLA compiles them one by one: nearly all of the seconds before a first step. But with
JAX's default generator (threefry, partitionable) the number at flat index i depends on the key and
on i alone. So one compiled draw of N numbers serves every parameter of at most N. The keys are
folded and arrays of one number are filled without compiling, and what is neither draw nor such an
array is compiled as before, all in one program.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.extend import core

from fairgrape_jax.masks import Tree

SAMPLERS: Mapping[str, Callable[..., jax.Array]] = {
    "_normal": lambda key, shape: random.normal(key, shape, np.float32),
    "_truncated_normal": lambda key, shape, low, high: random.truncated_normal(
        key, low, high, shape, np.float32
    ),
    "_uniform": lambda key, shape, low, high: random.uniform(key, shape, np.float32, low, high),
}
"""Samplers of float32 numbers by the name of their program in a jaxpr."""

KEY = "key<fry>[]"  # a key of threefry, JAX's default generator, in a jaxpr
SMALLEST, LARGEST = 2**16, 2**22  # sizes of draws: powers of 4 between them, then multiples


@dataclasses.dataclass(frozen=True)
class Draw:
    """A leaf that is one draw of random numbers times a number.

    Attributes:
        sampler: a row of `SAMPLERS`.
        bounds: the least and the greatest number, for samplers that have them.
        shape: of the leaf.
        key: the variable of the jaxpr that is the key.
        scale: the factor, a variable or a literal of the jaxpr.
    """

    sampler: str
    bounds: tuple[Any, ...]
    shape: tuple[int, ...]
    key: core.Var
    scale: core.Var | core.Literal | None


@dataclasses.dataclass(frozen=True)
class Fill:
    """A leaf of one number everywhere.

    Attributes:
        value: the number.
        shape: of the leaf.
        dtype: of the leaf.
    """

    value: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the leaves of an initialisation are made.

    Attributes:
        draws: by the position of a leaf, those that are draws.
        fills: by the position of a leaf, those of one number.
        keys: from the arguments to the keys of the draws; called outside of any compiled program.
        rest: from the arguments to the scales of the draws and the other leaves, compiled.
    """

    draws: Mapping[int, Draw]
    fills: Mapping[int, Fill]
    keys: Callable[..., Sequence[jax.Array]]
    rest: Callable[..., Sequence[jax.Array]]


def quick_initializer(init: Callable[..., Tree]) -> Callable[..., Tree]:
    """What `jax.jit(init)` is, bit for bit, for a fraction of its compile time on a CPU.

    On other platforms, under another transformation and where nothing of it is a draw of JAX's
    default generator or a number everywhere it is `jax.jit(init)` itself.

    Args:
        init: from arrays, as a random key or parameters, to a tree of arrays.

    Example:
        >>> make = quick_initializer(lambda key: {"kernel": 0.1 * random.normal(key, (3, 2))})
        >>> make(random.key(0))["kernel"].shape
        (3, 2)
    """
    compiled = jax.jit(init)

    def initialise(*args: Tree) -> Tree:
        arrays = jax.tree.leaves(args)
        if not has_prefixes(arrays):
            return compiled(*args)
        traced = compiled.trace(*args)  # kept by jit, for each setting that tracing depends on
        recipe = write_recipe(traced.jaxpr)
        if not recipe.draws and not recipe.fills:
            return compiled(*args)
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), follow(recipe, arrays))

    return initialise


def has_prefixes(args: Sequence[jax.Array]) -> bool:
    """Whether a draw of fewer numbers by threefry is the beginning of a draw of more, to the bit.

    Args:
        args: random keys and other arrays; numbers were compared on CPUs alone.
    """
    settings: Any = jax.config
    if not settings.jax_threefry_partitionable or settings.jax_disable_jit:
        return False
    return all(
        not isinstance(array, jax.core.Tracer)
        and not array.committed  # a leaf that is copied is on the default device
        and {device.platform for device in array.devices()} == {"cpu"}
        for array in args
    )


def follow(recipe: Recipe, args: Sequence[jax.Array]) -> list[jax.Array]:
    """The leaves of an initialisation.

    Args:
        recipe: how they are made.
        args: random keys and other arrays.
    """
    results = iter(recipe.rest(*args))
    scales = [1.0 if draw.scale is None else next(results) for draw in recipe.draws.values()]
    leaves = {
        position: sample(draw, folded, scale)
        for (position, draw), folded, scale in zip(
            recipe.draws.items(), recipe.keys(*args), scales, strict=True
        )
    }
    for position, fill in recipe.fills.items():
        leaves[position] = jnp.array(np.full(fill.shape, fill.value, fill.dtype))
    others = list(results)
    count = len(leaves) + len(others)
    return [leaves[place] if place in leaves else others.pop(0) for place in range(count)]


def sample(draw: Draw, key: jax.Array, scale: jax.Array | float) -> jax.Array:
    """One leaf: the beginning of a draw of a size that many leaves share.

    Args:
        draw: which numbers.
        key: a random key.
        scale: () float32, what they are multiplied by.
    """
    count = math.prod(draw.shape)
    numbers = _sample(draw.sampler, draw.bounds, shared_size(count), key, np.float32(scale))
    # A slice on the device would be a program for each size; a copy, to let go of the numbers
    # that are not used.
    return jnp.array(np.asarray(numbers)[:count].reshape(draw.shape))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(
    sampler: str, bounds: tuple[Any, ...], size: int, key: jax.Array, scale: np.float32
) -> jax.Array:
    # In one program as in `init`, because XLA multiplies the sampler's own factor by the scale.
    return SAMPLERS[sampler](key, (size,), *bounds) * scale


def shared_size(count: int) -> int:
    """How many numbers are drawn where some are needed.

    Args:
        count: how many are needed.

    Example:
        >>> shared_size(10), shared_size(2**16 + 1) == 2**18, shared_size(2**23 + 1) == 3 * 2**22
        (65536, True, True)
    """
    if count > LARGEST:
        return -(-count // LARGEST) * LARGEST
    size = SMALLEST
    while size < count:
        size *= 4
    return size


@functools.lru_cache(maxsize=64)
def write_recipe(program: core.ClosedJaxpr) -> Recipe:
    """How the leaves of an initialisation are made.

    Args:
        program: of the initialisation, from its arguments to its leaves.
    """
    jaxpr = program.jaxpr
    draws = {} if jaxpr.effects else find_draws(jaxpr)
    fills = {} if jaxpr.effects else find_fills(jaxpr)
    made = {**draws, **fills}
    keys = [draw.key for draw in draws.values()]
    scales = [draw.scale for draw in draws.values() if draw.scale is not None]
    others = [leaf for position, leaf in enumerate(jaxpr.outvars) if position not in made]
    return Recipe(
        draws,
        fills,
        core.jaxpr_as_fun(_restricted(program, keys)),
        jax.jit(core.jaxpr_as_fun(_restricted(program, [*scales, *others]))),
    )


def find_fills(jaxpr: core.Jaxpr) -> dict[int, Fill]:
    """The leaves of one number everywhere, by their position.

    Args:
        jaxpr: of an initialisation.
    """
    makers = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    fills = {}
    for position, leaf in enumerate(jaxpr.outvars):
        equation = makers.get(leaf) if isinstance(leaf, core.Var) else None
        if equation is None or equation.primitive.name != "broadcast_in_dim":
            continue
        number, array = equation.invars[0], _array_type(leaf)
        plain = equation.params["sharding"] is None and not array.weak_type
        if plain and isinstance(number, core.Literal):
            fills[position] = Fill(number.val, array.shape, array.dtype)
    return fills


def find_draws(jaxpr: core.Jaxpr) -> dict[int, Draw]:
    """The leaves that are one draw times a number, used nowhere else, by their position.

    Args:
        jaxpr: of an initialisation.
    """
    live = _live(jaxpr, jaxpr.outvars)
    makers = {variable: equation for equation in live for variable in equation.outvars}
    inputs = [atom for equation in live for atom in equation.invars]
    uses = collections.Counter(_variables([*inputs, *jaxpr.outvars]))
    draws = {}
    for position, leaf in enumerate(jaxpr.outvars):
        equation, scale = _without_scale(leaf, makers, uses)
        if equation is not None and (draw := as_draw(equation)) is not None:
            draws[position] = dataclasses.replace(draw, scale=scale)
    return draws


def as_draw(equation: core.JaxprEqn) -> Draw | None:
    """The draw of float32 numbers that an equation is, if it is one to the letter.

    Args:
        equation: of a jaxpr.
    """
    atoms: list[Any] = equation.invars
    sampler, shape = _name(equation), _array_type(equation.outvars[0]).shape
    if sampler not in SAMPLERS or [str(_array_type(key)) for key in atoms[:1]] != [KEY]:
        return None
    if not all(isinstance(bound, core.Literal) for bound in atoms[1:]):
        return None
    bounds = tuple(bound.val for bound in atoms[1:])
    try:
        reference = jax.make_jaxpr(lambda key: SAMPLERS[sampler](key, shape, *bounds))(
            jax.ShapeDtypeStruct((), _array_type(atoms[0]).dtype)
        )
    except TypeError:  # a function of the same name with other arguments
        return None
    parts = {"invars": atoms[:1], "outvars": equation.outvars, "eqns": [equation]}
    alone = reference.jaxpr.replace(**parts)
    same = str(reference.jaxpr) == str(alone) and not equation.params["jaxpr"].consts
    return Draw(sampler, bounds, shape, atoms[0], None) if same else None


def _name(equation: core.JaxprEqn) -> str:
    """The name of the program that an equation calls, "" for another operation."""
    return str(equation.params["name"]) if equation.primitive.name in ("jit", "pjit") else ""


def _array_type(atom: Any) -> Any:
    """The shape and dtype of a variable or a literal; mypy does not know that arrays have them."""
    return atom.aval


def _without_scale(
    leaf: Any, makers: Mapping[Any, core.JaxprEqn], uses: Mapping[Any, int]
) -> tuple[core.JaxprEqn | None, Any]:
    """The equation that makes a leaf, without the multiplication by a number that follows it."""
    equation = _only_maker(leaf, makers, uses)
    if equation is None or equation.primitive.name != "mul":
        return equation, None
    for numbers, scale in (equation.invars, equation.invars[::-1]):
        if _array_type(numbers).shape and not _array_type(scale).shape:
            return _only_maker(numbers, makers, uses), scale
    return None, None


def _only_maker(
    atom: Any, makers: Mapping[Any, core.JaxprEqn], uses: Mapping[Any, int]
) -> core.JaxprEqn | None:
    """The equation that makes a variable which is used once."""
    used_once = isinstance(atom, core.Var) and uses[atom] == 1
    return makers.get(atom) if used_once else None


def _live(jaxpr: core.Jaxpr, atoms: Iterable[Any]) -> list[core.JaxprEqn]:
    """The equations that some of a jaxpr's variables depend on, in order."""
    needed, live = set(_variables(atoms)), []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            live.append(equation)
            needed.update(_variables(equation.invars))
    return live[::-1]


def _restricted(program: core.ClosedJaxpr, atoms: Sequence[Any]) -> core.ClosedJaxpr:
    """The program that gives some of a program's variables."""
    part = program.jaxpr.replace(outvars=list(atoms), eqns=_live(program.jaxpr, atoms))
    return core.ClosedJaxpr(part, program.consts)


def _variables(atoms: Iterable[Any]) -> list[core.Var]:
    """What of some atoms is a variable and not a literal."""
    return [atom for atom in atoms if isinstance(atom, core.Var)]
