"""Operations element by element: their operands' places are the same."""

from __future__ import annotations

from fairgrape_jax.structures.labels import SINGLE, Axes
from fairgrape_jax.structures.step import Step, cannot_follow

_BOTH = {"add", "sub", "max", "min", "select_n", "add_any", "atan2", "or", "and", "xor"}
_ONE = (
    "abs neg sign sqrt cbrt square tanh sin tan asin atan sinh asinh atanh erf erf_inv floor ceil"
)
_ONE += " round convert_element_type copy copy_p stop_gradient relu expm1 log1p reduce_precision"
_ONE += " real imag conj optimization_barrier name sharding_constraint"
_OTHERS = (
    "exp exp2 log cos acos cosh acosh logistic rsqrt erfc lgamma digamma bessel_i0e bessel_i1e"
)
_OTHERS += " is_finite not eq ne lt le gt ge pow nextafter rem clamp population_count clz igamma"
_OTHERS += " igammac zeta polygamma regularized_incomplete_beta shift_left shift_right_logical"
_OTHERS += " shift_right_arithmetic eq_to le_to lt_to bitcast_convert_type complex"
ELEMENTWISE = {*_BOTH, *_ONE.split(), *_OTHERS.split(), "mul", "div", "integer_pow"}


def elementwise(step: Step) -> list[Axes]:
    """Places of all operands are joined; an operand of one place along an axis is spread over it.

    Args:
        step: the operation.
    """
    name, shape = step.equation.name, step.after[0]
    arrays = [axes for axes in step.inputs if axes.places]
    if not arrays or not shape:
        return [Axes((), (), _is_zero(step))] * len(step.after)
    if any(len(axes.places) != len(shape) for axes in arrays):
        return cannot_follow(step)
    if name == "optimization_barrier" and len(arrays) > 1:
        return list(step.inputs)
    places = []
    for axis, size in enumerate(shape):
        lines = [axes.places[axis] for axes in arrays]
        full = [line for line in lines if len(line) == size]
        if any(len(line) not in (1, size) for line in lines) or not full:
            return cannot_follow(step)  # numbers of another width in place of these
        for line in lines:
            if len(line) != size:
                step.labels.mark(line, SINGLE)
        for line in full[1:]:
            step.labels.join(full[0], line)
        places.append(full[0])
    vanishes = tuple(_vanishes(step, axis, size) for axis, size in enumerate(shape))
    return [Axes(tuple(places), vanishes, _is_zero(step))] * len(step.after)


def _vanishes(step: Step, axis: int, size: int) -> bool:
    name, inputs = step.equation.name, step.inputs
    zero = [
        axes.zero or bool(axes.places and axes.vanishes[axis] and len(axes.places[axis]) == size)
        for axes in inputs
    ]
    if name == "select_n":
        return all(zero[1:])
    if name == "min" and not all(zero):  # a rectifier's bound: min(0, 6)
        return False
    if name in _BOTH:
        return all(zero)
    if name == "mul":
        return any(zero)
    if name == "integer_pow":
        return zero[0] and step.equation.params["y"] > 0
    return name in (*_ONE.split(), "div") and zero[0]


def _is_zero(step: Step) -> bool:
    return step.equation.name in ("convert_element_type", "copy") and step.inputs[0].zero
