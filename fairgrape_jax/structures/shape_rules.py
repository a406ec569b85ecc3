"""Operations that change shapes: broadcasting, reshaping, cutting, padding."""

from __future__ import annotations

import numpy as np

from fairgrape_jax.structures import labels as lb
from fairgrape_jax.structures.labels import SINGLE, Axes, Places
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


def _broadcast(step: Step) -> list[Axes]:
    (axes, *_), shape = step.inputs, step.after[0]
    places: list[Places | None] = [None] * len(shape)
    vanishes = [False] * len(shape)
    for axis, target in enumerate(step.equation.params["broadcast_dimensions"]):
        if len(axes.places[axis]) == shape[target]:
            places[target], vanishes[target] = axes.places[axis], axes.vanishes[axis]
        else:
            step.labels.mark(axes.places[axis], SINGLE)
    fresh = tuple(
        step.labels.fresh(n) if p is None else p for n, p in zip(shape, places, strict=True)
    )
    return [Axes(fresh, tuple(vanishes), axes.zero)]


def _broadcast_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    return {**params, "shape": sizes(outputs[0], kept), "sharding": None}


def _reshape(step: Step) -> list[Axes]:
    axes, after = step.inputs[0], step.after[0]
    if step.equation.params.get("dimensions") is not None:
        return cannot_follow(step)
    places = lb.reshape(step.labels, axes, step.before[0], after)
    vanishing = {id(p): v for p, v in zip(axes.places, axes.vanishes, strict=True)}
    every = all(v for p, v in zip(axes.places, axes.vanishes, strict=True) if len(p) > 1)
    return [Axes(places, tuple(vanishing.get(id(p), every) for p in places), axes.zero)]


def _reshape_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    return {**params, "new_sizes": sizes(outputs[0], kept), "sharding": None}


def _transpose(step: Step) -> list[Axes]:
    order, axes = step.equation.params["permutation"], step.inputs[0]
    return [Axes(tuple(axes.places[i] for i in order), tuple(axes.vanishes[i] for i in order))]


def _squeeze(step: Step) -> list[Axes]:
    axes, gone = step.inputs[0], step.equation.params["dimensions"]
    for axis in gone:
        step.labels.mark(axes.places[axis], SINGLE)
    return [without(axes, gone)]


def _expand(step: Step) -> list[Axes]:
    added, axes = step.equation.params["dimensions"], step.inputs[0]
    rest = iter(zip(axes.places, axes.vanishes, strict=True))
    pairs = [
        (step.labels.whole(1, SINGLE), False) if axis in added else next(rest)
        for axis in range(len(step.after[0]))
    ]
    return [Axes(tuple(p for p, _ in pairs), tuple(v for _, v in pairs))]


def _rev(step: Step) -> list[Axes]:
    axes, turned = step.inputs[0], step.equation.params["dimensions"]
    places = tuple(p[::-1] if axis in turned else p for axis, p in enumerate(axes.places))
    return [axes._replace(places=places)]


def _concatenate(step: Step) -> list[Axes]:
    along = step.equation.params["dimension"]
    first = step.inputs[0]
    places = list(first.places)
    for other in step.inputs[1:]:
        for axis, (left, right) in enumerate(zip(first.places, other.places, strict=True)):
            if axis != along:
                step.labels.join(left, right)
    places[along] = np.concatenate([axes.places[along] for axes in step.inputs])
    vanishes = tuple(all(axes.vanishes[i] for axes in step.inputs) for i in range(len(places)))
    return [Axes(tuple(places), vanishes)]


def _slice(step: Step) -> list[Axes]:
    params, axes = step.equation.params, step.inputs[0]
    steps = params["strides"] or (1,) * len(axes.places)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    places = tuple(p[a:b:s] for p, (a, b, s) in zip(axes.places, bounds, strict=True))
    for whole, s in zip(axes.places, steps, strict=True):
        if s != 1:  # where the places lie between others, their distance would change
            step.labels.mark(whole, "a slice in steps")
    return [axes._replace(places=places)]


def _slice_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    counts = [np.concatenate([[0], np.cumsum(kept(p))]) for p in inputs[0].places]
    return {
        **params,
        "start_indices": tuple(
            int(c[i]) for c, i in zip(counts, params["start_indices"], strict=True)
        ),
        "limit_indices": tuple(
            int(c[i]) for c, i in zip(counts, params["limit_indices"], strict=True)
        ),
    }


def _split(step: Step) -> list[Axes]:
    axes, along = step.inputs[0], step.equation.params["axis"]
    cuts = np.cumsum(step.equation.params["sizes"])[:-1]
    return [
        axes._replace(places=(*axes.places[:along], part, *axes.places[along + 1 :]))
        for part in np.split(axes.places[along], cuts)
    ]


def _split_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    return {**params, "sizes": tuple(sizes(out, kept)[params["axis"]] for out in outputs)}


def _pad(step: Step) -> list[Axes]:
    axes, value = step.inputs
    places: list[Places] = []
    vanishes: list[bool] = []
    for p, v, (low, high, inside) in zip(
        axes.places, axes.vanishes, step.equation.params["padding_config"], strict=True
    ):
        vanishes.append(v and (value.zero or (low, high, inside) == (0, 0, 0)))
        if inside or low < 0 or high < 0:
            step.labels.mark(p, "a padding that is negative or inside")
            size = step.after[0][len(places)]
            places.append(step.labels.whole(size, "a padding that is negative or inside"))
        else:
            around = step.labels.fresh(low), step.labels.fresh(high)
            places.append(np.concatenate([around[0], p, around[1]]))
    return [Axes(tuple(places), tuple(vanishes), axes.zero and value.zero)]


def _pad_shapes(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    config = []
    for (low, high, inside), p in zip(params["padding_config"], outputs[0].places, strict=True):
        if not inside and low >= 0 and high >= 0:
            low = int(kept(p[:low]).sum())
            high = int(kept(p[len(p) - high :]).sum())
        config.append((low, high, inside))
    return {**params, "padding_config": tuple(config)}


def _iota(step: Step) -> list[Axes]:
    along, shape = step.equation.params["dimension"], step.after[0]
    places = tuple(
        step.labels.whole(n, "an index over channels") if axis == along else step.labels.fresh(n)
        for axis, n in enumerate(shape)
    )
    return [Axes(places, (False,) * len(shape))]


def _drawn(step: Step) -> list[Axes]:
    shape = step.after[0]
    return [Axes(tuple(map(step.labels.fresh, shape)), (False,) * len(shape))]


def _new_shape(params: Params, inputs: Labelled, outputs: Labelled, kept: Kept) -> Params:
    return {**params, "shape": sizes(outputs[0], kept)}


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expand_dims": _expand,
    "rev": _rev,
    "concatenate": _concatenate,
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "iota": _iota,
    "random_bits": _drawn,
}
SHAPES: dict[str, Shrunk] = {
    "broadcast_in_dim": _broadcast_shapes,
    "reshape": _reshape_shapes,
    "slice": _slice_shapes,
    "split": _split_shapes,
    "pad": _pad_shapes,
    "iota": _new_shape,
    "random_bits": _new_shape,
}
