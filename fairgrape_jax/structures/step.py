"""One equation and the labels of its operands: what a rule is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fairgrape_jax.structures.labels import Axes, Labels, Places
from fairgrape_jax.structures.program import Equation

Shape = tuple[int, ...]
Kept = Callable[[Places], np.ndarray]  # labels to which of them are kept, bool


class Step(NamedTuple):
    """An equation and what is known of it.

    Attributes:
        labels: of the program.
        equation: the operation.
        inputs: the labels of its operands; of no axes for numbers.
        before: the shapes of its operands.
        after: the shapes of its results.
    """

    labels: Labels
    equation: Equation
    inputs: Sequence[Axes]
    before: Sequence[Shape]
    after: Sequence[Shape]


Labelled = Sequence[Axes]
Params = dict[str, Any]
Rule = Callable[[Step], list[Axes]]
# Static arguments, labels of the operands and of the results, and what is kept, to such arguments.
Shrunk = Callable[[Params, Labelled, Labelled, Kept], Params]


def sizes(axes: Axes, kept: Kept) -> Shape:
    """The shape of a value with the places that are kept.

    Args:
        axes: its labels.
        kept: which labels are.
    """
    return tuple(int(kept(places).sum()) for places in axes.places)


def cannot_follow(step: Step) -> list[Axes]:
    """All channels that reach an operation stay whole, and all that it gives.

    Args:
        step: the operation.
    """
    reason = f"{step.equation.name}, which cannot be followed"
    for axes in step.inputs:
        for places in axes.places:
            step.labels.mark(places, reason)
    return [whole_axes(step.labels, shape, reason) for shape in step.after]


def whole_axes(labels: Labels, shape: Shape, reason: str) -> Axes:
    """The labels of a value that stays whole.

    Args:
        labels: of the program.
        shape: of the value.
        reason: as for `Labels.mark`.
    """
    return Axes(tuple(labels.whole(n, reason) for n in shape), (False,) * len(shape))


def without(axes: Axes, gone: Sequence[int]) -> Axes:
    """The labels of a value without some of its axes.

    Args:
        axes: its labels.
        gone: the numbers of these axes.
    """
    left = [axis for axis in range(len(axes.places)) if axis not in gone]
    return Axes(tuple(axes.places[i] for i in left), tuple(axes.vanishes[i] for i in left))
