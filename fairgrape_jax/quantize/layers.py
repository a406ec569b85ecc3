"""Which operations of a network take weights: its convolutions and matrix products, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from fairgrape_jax.structures.program import Atom, Equation, Program, Scalar, trace

CONVOLUTION = "conv_general_dilated"
OPERATIONS = (CONVOLUTION, "dot_general")

Weights = tuple[int, tuple[int, ...]]  # their number in the program, and their output channels


@dataclasses.dataclass(frozen=True)
class Layer:
    """An operation with weights.

    Attributes:
        name: that of the parameter that its weights come from; two layers of the same weights have
            one name.
        equation: its place in the program.
        side: which of its two arguments the weights are.
        channels: the axes of the weights that are output channels.
    """

    name: str
    equation: int
    side: int
    channels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Network:
    """A traced network.

    Attributes:
        program: its operations.
        result: the tree of its outputs, of shapes.
        layers: what is int8, in the order of the program.
        left: operations that stay as they are, in words.
        needed: of each leaf of the parameters, whether anything but a layer's weights needs it.
    """

    program: Program
    result: Any
    layers: tuple[Layer, ...]
    left: tuple[str, ...]
    needed: tuple[bool, ...]


def find_layers(function: Callable[..., Any], names: Sequence[str], *args: Any) -> Network:
    """Trace a network, and find its layers.

    A layer is a convolution or a matrix product of what depends on the inputs with what depends on
    parameters alone, whatever was done to these (masks, transposes, another dtype). Products of two
    things that depend on the inputs, as in attention, and what is inside of loops and branches is
    left in floating point.

    Args:
        function: (list of arrays, *inputs).
        names: of the arrays.
        args: the list and the inputs, arrays or their shapes.
    """
    program, result = trace(function, *args)
    # Of every value: the leaves of the parameters that it comes from; None where inputs take part.
    sources: dict[int, frozenset[int] | None] = dict.fromkeys(program.constants, frozenset())
    for place, number in enumerate(program.inputs):
        sources[number] = frozenset([place]) if place < len(names) else None

    def source(atom: Atom) -> frozenset[int] | None:
        return frozenset() if isinstance(atom, Scalar) else sources[atom]

    layers: list[Layer] = []
    left: list[str] = []
    titles: dict[Weights, str] = {}
    for place, equation in enumerate(program.equations):
        of_inputs = list(map(source, equation.inputs))
        of_params = [leaves for leaves in of_inputs if leaves is not None]
        constant = len(of_params) == len(of_inputs)
        sources.update(
            dict.fromkeys(equation.outputs, frozenset().union(*of_params) if constant else None)
        )
        if constant:
            continue
        if equation.name not in OPERATIONS:
            left += [f"{name} within {equation.name}" for name in _operations_within(equation)]
        elif len(of_params) == 0:
            left.append(f"{equation.name} of two activations")
        elif leaves := of_params[0]:  # a constant of the program is no layer's weights
            side = of_inputs.index(leaves)
            weights = equation.inputs[side]
            if equation.name == CONVOLUTION and side == 0:
                left.append(f"{equation.name} by an activation")
                continue
            assert isinstance(weights, int)
            key = weights, _output_channels(equation, side, len(program.shapes[weights]))
            if key not in titles:
                titles[key] = _new_title([names[leaf] for leaf in sorted(leaves)], titles)
            layers.append(Layer(titles[key], place, side, key[1]))
    needed = _needed(program, layers)[: len(names)]
    return Network(program, result, tuple(layers), tuple(left), needed)


def _new_title(names: Sequence[str], titles: Mapping[Weights, str]) -> str:
    """The name of weights that come from these leaves, unlike the others."""
    name = " and ".join(names)
    taken = sum(title == name or title.startswith(f"{name} (") for title in titles.values())
    return f"{name} ({taken + 1})" if taken else name


def _output_channels(equation: Equation, side: int, rank: int) -> tuple[int, ...]:
    """The axes of weights that are not summed over."""
    numbers = equation.params["dimension_numbers"]
    if equation.name == CONVOLUTION:
        return (numbers.rhs_spec[0],)
    return tuple(axis for axis in range(rank) if axis not in numbers[0][side])


def _operations_within(equation: Equation) -> list[str]:
    """The names of convolutions and products in the programs of a loop or a branch."""
    names: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, ClosedJaxpr):
            walk(value.jaxpr)
        elif isinstance(value, Jaxpr):
            for inner in value.eqns:
                names.extend([inner.primitive.name] * (inner.primitive.name in OPERATIONS))
                walk(list(inner.params.values()))
        elif isinstance(value, list | tuple):
            for each in value:
                walk(each)

    walk(list(equation.params.values()))
    return names


def _needed(program: Program, layers: Sequence[Layer]) -> tuple[bool, ...]:
    """Of each input, whether the outputs depend on it by another way than a layer's weights."""
    sides = {layer.equation: layer.side for layer in layers}
    live = {atom for atom in program.outputs if isinstance(atom, int)}
    for place, equation in reversed(list(enumerate(program.equations))):
        if live.isdisjoint(equation.outputs):
            continue
        for side, atom in enumerate(equation.inputs):
            if isinstance(atom, int) and sides.get(place) != side:
                live.add(atom)
    return tuple(number in live for number in program.inputs)


def run(
    network: Network,
    arrays: Sequence[Any],
    inputs: Sequence[Any],
    call: Callable[[Layer, Equation, list[Any]], Any],
) -> Any:
    """The network's outputs, with another function in place of each layer.

    Args:
        network: as it was found.
        arrays: the leaves of the parameters, None where only layers need them.
        inputs: the arrays after them.
        call: (layer, equation, its two arguments) to its result; the weights are None where the
            leaf that they come from is.
    """
    program = network.program
    values: dict[int, Any] = dict(program.constants)
    values.update(zip(program.inputs, [*arrays, *inputs], strict=True))
    layers = {layer.equation: layer for layer in network.layers}

    def read(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Scalar) else values[atom]

    for place, equation in enumerate(program.equations):
        arguments = list(map(read, equation.inputs))
        if place in layers:
            outputs = call(layers[place], equation, arguments)
        elif any(argument is None for argument in arguments):
            values.update(dict.fromkeys(equation.outputs))
            continue
        else:
            outputs = equation.call(*arguments, **equation.params)
        several = outputs if isinstance(outputs, list | tuple) else [outputs]
        values.update(zip(equation.outputs, several, strict=True))
    return jax.tree.unflatten(jax.tree.structure(network.result), list(map(read, program.outputs)))


def scale_of_outputs(layer: Layer, equation: Equation, scale: Any, outputs: Any) -> Any:
    """The scales of a layer's weights in the layout of its outputs.

    Args:
        layer: the layer.
        equation: its operation.
        scale: of the weights, of size 1 along what is summed over.
        outputs: of the operation.
    """
    numbers = equation.params["dimension_numbers"]
    if equation.name == CONVOLUTION:
        shape = [1] * outputs.ndim
        shape[numbers.out_spec[1]] = -1
        return scale.reshape(shape)
    contracted, batch = numbers[0][layer.side], numbers[1][layer.side]
    free = [axis for axis in range(scale.ndim) if axis not in (*contracted, *batch)]
    laid = scale.transpose(*batch, *free, *contracted)
    others = [1] * (outputs.ndim - len(batch) - len(free))
    of_batch, of_free = laid.shape[: len(batch)], laid.shape[len(batch) : len(batch) + len(free)]
    middle = [*others, *of_free] if layer.side else [*of_free, *others]
    return laid.reshape(*of_batch, *middle)
