"""The functions that int8 networks are made of, compiled once for each network's program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Tree
from fairgrape_jax.quantize import layers as programs
from fairgrape_jax.quantize.layers import Layer, Network
from fairgrape_jax.quantize.numbers import (
    Scale,
    from_int8,
    range_scale,
    round_to_int8,
    to_int8,
    weight_scale,
)
from fairgrape_jax.structures.coupling import on_leaves
from fairgrape_jax.structures.program import Equation

Apply = Callable[[Tree, Any], Any]  # (params, x) to outputs


def simulate(apply: Apply, params: Tree, bounds: Mapping[str, Any], x: Any) -> Any:
    """The outputs of a network as int8 rounds it; gradients pass through the rounding.

    Args:
        apply: (params, x) to outputs.
        params: masks applied.
        bounds: of what each layer takes, by its name: two numbers, which may be traced.
        x: its inputs.
    """

    def call(layer: Layer, equation: Equation, arguments: list[Any]) -> Any:
        weights, values = arguments[layer.side], arguments[1 - layer.side]
        lower, upper = bounds[layer.name]
        scale = jax.lax.stop_gradient(weight_scale(weights, layer.channels))
        rounded = round_to_int8(values, range_scale(jnp.float32(lower), jnp.float32(upper)))
        return _in_order(layer, equation, rounded, round_to_int8(weights, scale))

    network, arrays = trace_layers(apply, params, x)
    check_layers(network, bounds)
    return programs.run(network, arrays, jax.tree.leaves(x), call)


class Scales(NamedTuple):
    """The scales of what an operation takes.

    Attributes:
        activation: of the values.
        weight: of the weights.
    """

    activation: Scale
    weight: Scale


class Still(NamedTuple):
    """A tree but for its arrays: what a compiled function is compiled for.

    Attributes:
        structure: of the tree.
        rest: its leaves, None in place of arrays of numbers.
    """

    structure: Any
    rest: tuple[Any, ...]

    @classmethod
    def of(cls, tree: Tree) -> Still:
        """That of a tree.

        Args:
            tree: of arrays, or of their shapes, which are kept.
        """
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple(None if _holds_numbers(leaf) else leaf for leaf in leaves))

    def filled(self, arrays: Sequence[Any]) -> Tree:
        """The tree with these arrays.

        Args:
            arrays: in its order.
        """
        left = iter(arrays)
        leaves = [next(left) if leaf is None else leaf for leaf in self.rest]
        return jax.tree.unflatten(self.structure, leaves)


@functools.partial(jax.jit, static_argnums=(0, 1))
def measure_bounds(
    apply: Apply, still: Still, arrays: Sequence[Any], x: Any
) -> dict[str, jax.Array]:
    """The least and the largest of what each layer takes.

    Args:
        apply: (params, x) to outputs.
        still: of the parameters.
        arrays: theirs.
        x: a batch of inputs.

    Returns:
        (calls, 2) float32 by the name of the layer.
    """
    bounds: dict[str, list[jax.Array]] = {}

    def call(layer: Layer, equation: Equation, arguments: list[Any]) -> Any:
        values = arguments[1 - layer.side].astype(jnp.float32)
        bounds.setdefault(layer.name, []).append(jnp.stack([values.min(), values.max()]))
        return equation.call(*arguments, **equation.params)

    network, arrays = trace_layers(apply, still.filled(arrays), x)
    programs.run(network, arrays, jax.tree.leaves(x), call)
    return {name: jnp.stack(each) for name, each in bounds.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def held_weights(
    apply: Apply, still: Still, arrays: Sequence[Any], x: Any
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The weights of each layer in int8, and their scales, by its name.

    Args:
        apply: (params, x) to outputs.
        still: of the parameters.
        arrays: theirs.
        x: inputs, of which the shapes alone matter.
    """
    held: dict[str, tuple[jax.Array, jax.Array]] = {}

    def call(layer: Layer, equation: Equation, arguments: list[Any]) -> Any:
        weights = arguments[layer.side]
        scale = weight_scale(weights, layer.channels)
        held[layer.name] = to_int8(weights, scale), scale.scale
        return equation.call(*arguments, **equation.params)

    network, arrays = trace_layers(apply, still.filled(arrays), x)
    programs.run(network, arrays, jax.tree.leaves(x), call)
    return held


Multiply = Callable[[Layer, Equation, jax.Array, jax.Array, Scales], jax.Array]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def int8_outputs(
    apply: Apply,
    shapes: Still,
    multiply: Multiply,
    stored: Mapping[str, Mapping[str, Any]],
    x: Tree,
) -> Any:
    """The outputs of a network from what `Int8Network.params` holds.

    Args:
        apply: (params, x) to outputs, of the network in floating point.
        shapes: of its parameters.
        multiply: a layer's operation on inputs and int8 weights.
        stored: the arrays.
        x: a batch of inputs.
    """

    def call(layer: Layer, equation: Equation, arguments: list[Any]) -> Any:
        weights, scale = stored["int8"][layer.name], stored["scales"][layer.name]
        activation = Scale(*stored["activations"][layer.name])
        weight = Scale(scale, jnp.zeros_like(scale))
        return multiply(
            layer, equation, arguments[1 - layer.side], weights, Scales(activation, weight)
        )

    params = shapes.filled(())
    network, _ = trace_layers(apply, params, x)
    check_layers(network, stored["int8"])
    arrays = [stored["float"].get(name) for name in on_leaves(apply, params)[0]]
    return programs.run(network, arrays, jax.tree.leaves(x), call)


def multiply_rounded(
    layer: Layer,
    equation: Equation,
    values: jax.Array,
    weights: jax.Array,
    scales: Scales,
) -> jax.Array:
    """The operation in floating point, of values that int8 can hold.

    Args:
        layer: which layer.
        equation: its operation.
        values: what it takes, in floating point.
        weights: int8.
        scales: of both.
    """
    rounded = round_to_int8(values, scales.activation)
    return _in_order(
        layer, equation, rounded, from_int8(weights, scales.weight).astype(values.dtype)
    )


def multiply_integers(
    layer: Layer,
    equation: Equation,
    values: jax.Array,
    weights: jax.Array,
    scales: Scales,
) -> jax.Array:
    """The operation in int32: sum (q - zero) w = sum q w - sum zero w; padding adds to neither.

    Args:
        layer: which layer.
        equation: its operation.
        values: what it takes, in floating point.
        weights: int8.
        scales: of both.
    """
    whole = to_int8(values, scales.activation)
    zero = jnp.broadcast_to(scales.activation.zero.astype(jnp.int8), whole.shape)
    in_int32 = {"preferred_element_type": jnp.dtype(jnp.int32), "precision": None}
    integer = dataclasses.replace(equation, params=equation.params | in_int32)
    sums = _in_order(layer, integer, whole, weights) - _in_order(layer, integer, zero, weights)
    scale = programs.scale_of_outputs(layer, equation, scales.weight.scale, sums)
    scale = scale * scales.activation.scale
    return (sums.astype(jnp.float32) * scale).astype(values.dtype)


def _in_order(layer: Layer, equation: Equation, values: jax.Array, weights: jax.Array) -> Any:
    arguments = (values, weights) if layer.side else (weights, values)
    return equation.call(*arguments, **equation.params)


def trace_layers(apply: Apply, params: Tree, x: Tree) -> tuple[Network, list[Any]]:
    """The layers of a network, and the arrays of its parameters.

    Args:
        apply: (params, x) to outputs.
        params: arrays or their shapes.
        x: likewise.
    """
    arrays, on_list = on_leaves(apply, params)
    leaves = list(arrays.values())
    return programs.find_layers(on_list, list(arrays), leaves, x), leaves


def check_layers(network: Network, calibrated: Mapping[str, Any]) -> None:
    """ValueError unless a network has the layers that were calibrated.

    Args:
        network: traced.
        calibrated: something of each of these, by name.
    """
    if other := {layer.name for layer in network.layers} ^ calibrated.keys():
        raise ValueError(
            f"params: layer {min(other)!r} is not in both the calibrated network and this one"
        )


def shape_of(leaf: Any) -> Any:
    """The shape and dtype of an array; anything else as it is.

    Args:
        leaf: of a tree.
    """
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array(leaf) else leaf


def _holds_numbers(leaf: Any) -> bool:
    return is_array(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct)
