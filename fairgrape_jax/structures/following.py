"""Follow a program from its inputs to its outputs, and run it with places left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairgrape_jax.structures.labels import Axes, Labels, Places
from fairgrape_jax.structures.program import Atom, Program, Scalar
from fairgrape_jax.structures.rules import follow, shrunk_params
from fairgrape_jax.structures.step import Step, whole_axes


@dataclasses.dataclass(frozen=True)
class Followed:
    """A program with the labels of all of its values.

    Attributes:
        program: the function.
        labels: which places are joined, and which stay.
        axes: the labels of every value, by its number.
        components: of every label, the number of what it is joined with.
    """

    program: Program
    labels: Labels
    axes: tuple[Axes, ...]
    components: np.ndarray

    def of(self, atom: Atom) -> Axes:
        """The labels of a value.

        Args:
            atom: the value, or a number.
        """
        return labels_of(atom, self.axes)


def labels_of(atom: Atom, axes: Mapping[int, Axes] | Sequence[Axes]) -> Axes:
    """The labels of a value, or of a number.

    Args:
        atom: the value, or a number.
        axes: the labels of values, by their numbers.
    """
    if isinstance(atom, Scalar):
        return Axes((), (), bool(np.all(np.asarray(atom.value) == 0)))
    return axes[atom]


def follow_program(program: Program, prunable: Sequence[bool]) -> Followed:
    """The labels of every value of a program.

    Args:
        program: a function of parameters and of other arguments.
        prunable: for each of its first inputs, the parameters, whether it may get smaller.
    """
    labels = Labels()
    axes: dict[int, Axes] = {}

    for place, number in enumerate(program.inputs):
        shape = program.shapes[number]
        if place < len(prunable) and prunable[place]:
            axes[number] = Axes(tuple(map(labels.fresh, shape)), (True,) * len(shape))
        else:
            reason = "whole numbers" if place < len(prunable) else "an input of the network"
            axes[number] = whole_axes(labels, shape, reason)
    for number in program.constants:
        shape = program.shapes[number]
        axes[number] = Axes(tuple(map(labels.fresh, shape)), (False,) * len(shape))

    def read(atom: Atom) -> Axes:
        return labels_of(atom, axes)

    def shape_of(atom: Atom) -> tuple[int, ...]:
        return () if isinstance(atom, Scalar) else program.shapes[atom]

    for equation in program.equations:
        step = Step(
            labels,
            equation,
            [read(atom) for atom in equation.inputs],
            [shape_of(atom) for atom in equation.inputs],
            [program.shapes[number] for number in equation.outputs],
        )
        axes.update(zip(equation.outputs, follow(step), strict=True))
    for atom in program.outputs:
        for places in read(atom).places:
            labels.mark(places, "an output of the network", soft=True)
    ordered = tuple(axes.get(number, Axes((), ())) for number in range(len(program.shapes)))
    return Followed(program, labels, ordered, labels.components())


def run(followed: Followed, removed: np.ndarray, args: Sequence[Any]) -> list[Any]:
    """The results of a program without some of its places.

    Args:
        followed: the program.
        removed: for every component, whether it is left out.
        args: the inputs, without these places already.

    Returns:
        The results, without these places.
    """
    program = followed.program

    def kept(places: Places) -> np.ndarray:
        return ~removed[followed.components[places]]

    def cut(number: int, array: Any) -> Any:
        for axis, places in enumerate(followed.axes[number].places):
            if not (there := kept(places)).all():
                array = array.take(np.flatnonzero(there), axis=axis)
        return array

    values: dict[int, Any] = dict(zip(program.inputs, args, strict=True))
    values |= {number: cut(number, array) for number, array in program.constants.items()}

    def read(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Scalar) else values[atom]

    for equation in program.equations:
        inputs = [followed.of(atom) for atom in equation.inputs]
        outputs = [followed.axes[number] for number in equation.outputs]
        params = shrunk_params(equation, inputs, outputs, kept)
        results = equation.call(*map(read, equation.inputs), **params)
        several = isinstance(results, (list, tuple))
        values.update(zip(equation.outputs, results if several else [results], strict=True))
    return [read(atom) for atom in program.outputs]
