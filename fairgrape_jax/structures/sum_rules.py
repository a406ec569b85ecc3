"""Operations that look at whole axes: reductions, windows, products, convolutions, lookups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fairgrape_jax.structures.labels import ALONG, IN_GROUPS, LOOKUP, Axes, Places
from fairgrape_jax.structures.program import Equation
from fairgrape_jax.structures.step import (
    Kept,
    Labelled,
    Params,
    Rule,
    Shrunk,
    Step,
    cannot_follow,
    sizes,
    without,
)


def _reduce(step: Step) -> list[Axes]:
    gone, axes = step.equation.params["axes"], step.inputs[0]
    for axis in gone:
        reason = f"{step.equation.name} over channels"
        # A sum or a maximum exists of fewer channels too; an index of one means another.
        step.labels.mark(axes.places[axis], reason, soft=not step.equation.name.startswith("arg"))
    return [without(axes, gone)] * len(step.after)


def _along(step: Step) -> list[Axes]:
    """One axis is looked at as a whole: a cumulative sum, a sort."""
    params = step.equation.params
    axis = params["axis"] if "axis" in params else params["dimension"]
    for axes in step.inputs:
        step.labels.mark(axes.places[axis], f"{step.equation.name} over channels")
    first = step.inputs[0]
    for other in step.inputs[1:]:
        for left, right in zip(first.places, other.places, strict=True):
            step.labels.join(left, right)
    return [Axes(first.places, (False,) * len(first.places))] * len(step.after)


def _window(step: Step) -> list[Axes]:
    params, axes = step.equation.params, step.inputs[0]
    ones = (1,) * len(axes.places)
    spread = [params.get(f"{k}_dilation") or ones for k in ("base", "window")]
    reason = f"{step.equation.name} over channels"
    places = []
    for axis, p in enumerate(axes.places):
        sides = params["window_dimensions"][axis], params["window_strides"][axis]
        if (*sides, *params["padding"][axis], spread[0][axis]) == (1, 1, 0, 0, 1):
            places.append(p)
        else:
            step.labels.mark(p, reason)
            places.append(step.labels.whole(step.after[0][axis], reason))
    zero = (False,) * len(places) if step.equation.name == "reduce_window" else axes.vanishes
    return [Axes(tuple(places), zero)] * len(step.after)


def _contract(step: Step, left: tuple[Axes, int], right: tuple[Axes, int]) -> None:
    """A sum over an axis of both factors; one of them is 0 where places are pruned."""
    (a, i), (b, j) = left, right
    step.labels.join(a.places[i], b.places[j])
    step.labels.contract(a, i)
    step.labels.contract(b, j)
    if not (a.vanishes[i] or b.vanishes[j]):
        step.labels.mark(a.places[i], "a product in which pruned channels are not 0")


def _dot(step: Step) -> list[Axes]:
    lhs, rhs = step.inputs
    (lc, rc), (lb_, rb) = step.equation.params["dimension_numbers"]
    for i, j in zip(lc, rc, strict=True):
        _contract(step, (lhs, i), (rhs, j))
    for i, j in zip(lb_, rb, strict=True):
        step.labels.join(lhs.places[i], rhs.places[j])
    pairs = [
        (lhs.places[i], lhs.vanishes[i] or rhs.vanishes[j]) for i, j in zip(lb_, rb, strict=True)
    ]
    for axes, used in ((lhs, {*lc, *lb_}), (rhs, {*rc, *rb})):
        free = [axis for axis in range(len(axes.places)) if axis not in used]
        pairs += [(axes.places[axis], axes.vanishes[axis]) for axis in free]
    return [Axes(tuple(p for p, _ in pairs), tuple(v for _, v in pairs))]


def _convolution(step: Step) -> list[Axes]:
    params = step.equation.params
    if params["batch_group_count"] != 1:
        return cannot_follow(step)
    (lhs, rhs), labels = step.inputs, step.labels
    (batch, feature, *image), (out, channels, *kernel), (n, o, *sides) = params["dimension_numbers"]
    for axes, spatial in ((lhs, image), (rhs, kernel)):
        for axis in spatial:
            labels.mark(axes.places[axis], ALONG)
    groups = params["feature_group_count"]
    if groups == 1:
        _contract(step, (lhs, feature), (rhs, channels))
    else:
        # A group of channels is pruned as a whole, what enters it and what it gives.
        labels.mark(rhs.places[channels], IN_GROUPS)
        entering = lhs.places[feature].reshape(groups, -1)
        leaving = rhs.places[out].reshape(groups, -1)
        labels.join(entering, entering[:, :1])
        labels.join(leaving, entering[:, :1])
    places: list[Places] = [np.zeros(0, int)] * len(step.after[0])
    vanishes = [False] * len(places)
    places[n], vanishes[n] = lhs.places[batch], lhs.vanishes[batch]
    places[o], vanishes[o] = rhs.places[out], rhs.vanishes[out]
    for axis in sides:
        places[axis] = labels.whole(step.after[0][axis], ALONG)
    return [Axes(tuple(places), tuple(vanishes))]


def _convolution_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    groups = params["feature_group_count"]
    if groups == 1:
        return params
    entering = kept(inputs[0].places[params["dimension_numbers"][0][1]])
    return {**params, "feature_group_count": groups * int(entering.sum()) // len(entering)}


def _gather(step: Step) -> list[Axes]:
    """A lookup: axes that are taken whole keep their labels."""
    params, (axes, indices) = step.equation.params, step.inputs
    numbers, taken = params["dimension_numbers"], params["slice_sizes"]
    if numbers.operand_batching_dims:
        return cannot_follow(step)
    reason = LOOKUP
    left = [i for i in range(len(axes.places)) if i not in numbers.collapsed_slice_dims]
    for axis, p in enumerate(axes.places):
        if axis not in left or taken[axis] != len(p):
            step.labels.mark(p, reason)
    step.labels.mark(indices.places[-1], reason)
    offsets, batch = iter(left), iter(range(len(indices.places) - 1))
    pairs: list[tuple[Places, bool]] = []
    for axis, size in enumerate(step.after[0]):
        if axis in numbers.offset_dims:
            i = next(offsets)
            whole = taken[i] == len(axes.places[i])
            place = axes.places[i] if whole else step.labels.whole(size, reason)
            pairs.append((place, whole and axes.vanishes[i]))
        else:
            pairs.append((indices.places[next(batch)], False))
    return [Axes(tuple(p for p, _ in pairs), tuple(v for _, v in pairs))]


def _gather_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    whole = [len(p) for p in inputs[0].places]
    left = sizes(inputs[0], kept)
    pairs = zip(params["slice_sizes"], whole, left, strict=True)
    return {**params, "slice_sizes": tuple(new if n == old else n for n, old, new in pairs)}


def _dynamic_slice(step: Step) -> list[Axes]:
    axes = step.inputs[0]
    places: list[Places] = []
    for p, size in zip(axes.places, step.after[0], strict=True):
        if len(p) != size:
            step.labels.mark(p, LOOKUP)
        places.append(p if len(p) == size else step.labels.whole(size, LOOKUP))
    return [axes._replace(places=tuple(places))]


def _dynamic_slice_shapes(
    params: Params, inputs: Labelled, outputs: Labelled, kept: Kept
) -> Params:
    return {**params, "slice_sizes": sizes(outputs[0], kept)}


def products(equation: Equation, inputs: Sequence[Axes], outputs: Sequence[Axes]) -> Any:
    """The axes whose sizes, multiplied, are the multiplications of a product; None of no product.

    Args:
        equation: the operation.
        inputs: the labels of its operands.
        outputs: those of its result.
    """
    if equation.name == "dot_general":
        (lc, _), _ = equation.params["dimension_numbers"]
        return [*outputs[0].places, *(inputs[0].places[i] for i in lc)]
    if equation.name == "conv_general_dilated":
        out = equation.params["dimension_numbers"][1][0]
        kernel = [p for axis, p in enumerate(inputs[1].places) if axis != out]
        return [*outputs[0].places, *kernel]
    return None


RULES: dict[str, Rule] = {
    **{f"reduce_{kind}": _reduce for kind in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **dict.fromkeys(("argmax", "argmin"), _reduce),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort"), _along),
    **{f"reduce_window{kind}": _window for kind in ("", "_sum", "_max", "_min")},
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
}
SHAPES: dict[str, Shrunk] = {
    "conv_general_dilated": _convolution_shapes,
    "gather": _gather_shapes,
    "dynamic_slice": _dynamic_slice_shapes,
}
