"""What each primitive does to the labels of its operands, and its shapes with places left out.

A rule gives the labels of the results; where static arguments of a primitive speak of shapes, a
second function gives them for the smaller operands. A primitive without a rule cannot be followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairgrape_jax.structures import shape_rules, sum_rules
from fairgrape_jax.structures.elementwise import ELEMENTWISE, elementwise
from fairgrape_jax.structures.labels import Axes
from fairgrape_jax.structures.program import Equation
from fairgrape_jax.structures.step import Kept, Rule, Shrunk, Step, cannot_follow

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **shape_rules.RULES,
    **sum_rules.RULES,
}
SHAPES: dict[str, Shrunk] = {**shape_rules.SHAPES, **sum_rules.SHAPES}


def follow(step: Step) -> list[Axes]:
    """The labels of the results of an equation.

    Args:
        step: the equation.
    """
    return RULES.get(step.equation.name, cannot_follow)(step)


def shrunk_params(
    equation: Equation, inputs: Sequence[Axes], outputs: Sequence[Axes], kept: Kept
) -> dict[str, Any]:
    """The static arguments of an equation on smaller operands.

    Args:
        equation: the operation.
        inputs: the labels of its operands.
        outputs: those of its results.
        kept: which labels are kept.
    """
    shrink = SHAPES.get(equation.name)
    return shrink(equation.params, inputs, outputs, kept) if shrink else equation.params
