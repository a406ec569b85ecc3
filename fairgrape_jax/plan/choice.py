"""The programs by which a run chooses weights: the fixed point, and the max-min survey."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from fairgrape_jax.plan.shapes import Program, Shapes, nbytes, network_and_dense
from fairgrape_jax.selection import network as selection
from fairgrape_jax.selection.maxmin import tree as maxmin
from fairgrape_jax.selection.maxmin.layer import sampling_step


def _scores(shapes: Shapes) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Importance and masks as the choice takes them, leaf by leaf, on every device."""
    masks = jax.tree.leaves(shapes.network.masks)
    groups = len(shapes.session.dataset.groups)
    rows = tuple(jax.ShapeDtypeStruct((groups, *m.shape), np.float32) for m in masks)
    return shapes.placed(rows, None), shapes.placed(tuple(masks), None)


def _chosen_over(shapes: Shapes) -> tuple[jax.Device, ...]:
    """The devices that a choice is spread over, as `rounds.select` has it."""
    return () if shapes.devices[0].platform == "cpu" else tuple(shapes.devices)


def _segments(shapes: Shapes) -> tuple[int, ...]:
    allocation = shapes.session.experiment.scoring.allocation
    layers = selection.members(shapes.network.masks, allocation)
    return tuple(segment for segment, leaves in enumerate(layers.values()) for _ in leaves)


def make_selection(shapes: Shapes) -> Program:
    """FairGRAPE's choice by the fixed point.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        The program.
    """
    rows, alive = _scores(shapes)
    segments = _segments(shapes)
    keep = shapes.placed(jax.ShapeDtypeStruct((segments[-1] + 1,), np.int32), None)
    devices = _chosen_over(shapes)
    function = selection.solve_leaves
    return Program(
        name="selection",
        function=_WithOptions(
            function, {"segments": segments, "finish": "greedy", "devices": devices}
        ),
        arguments=(rows, alive, keep),
        donated=0,
        # The means that the importances were copied from, on the first device.
        resident=network_and_dense(shapes) + nbytes(rows),
        calls=1,
        per="round",
    )


def large_layers(shapes: Shapes) -> list[int]:
    """Weights of the layers that the max-min choice passes over on devices; others are small.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        The number of each.
    """
    sizes = [0] * (_segments(shapes)[-1] + 1)
    for mask, segment in zip(jax.tree.leaves(shapes.network.masks), _segments(shapes), strict=True):
        sizes[segment] += math.prod(mask.shape)
    return [size for size in sizes if sampling_step(size) > 1]


def make_maxmin(shapes: Shapes) -> Program:
    """A pass of the max-min choice over its large layers.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        The program.
    """
    rows, _ = _scores(shapes)
    devices = _chosen_over(shapes)
    shards = max(len(devices), 1)
    sizes = large_layers(shapes)
    groups = rows[0].shape[0]
    joined = [jax.ShapeDtypeStruct((groups, n), np.float32) for n in sizes]
    masks = [jax.ShapeDtypeStruct((n,), np.bool_) for n in sizes]
    blocks = jax.eval_shape(lambda r, a: maxmin.pack_layers(r, a, shards), joined, masks)
    if len(devices) > 1:
        blocks = jax.tree.map(
            lambda axis, part: shapes.placed(part, axis),
            maxmin.CUT,
            blocks,
            is_leaf=lambda axis: axis is None,
        )
    else:
        blocks = shapes.placed(blocks, None)
    count = len(sizes)
    factor: Any = jax.ShapeDtypeStruct((count, groups), np.float32)
    number: Any = jax.ShapeDtypeStruct((count,), np.int32)
    window = shapes.placed(maxmin.Window(factor, factor, number, number), None)
    capacity = maxmin.capacity_of(sizes)
    return Program(
        name="max-min",
        function=_WithOptions(maxmin.survey_blocks, {"capacity": capacity, "devices": devices}),
        arguments=(blocks, window),
        donated=0,
        resident=network_and_dense(shapes) + nbytes(rows),
        calls=1,
        per="round",
    )


@dataclasses.dataclass(frozen=True)
class _WithOptions:
    """A jitted function with its static arguments, which it takes by name."""

    function: Any
    options: dict[str, Any]

    def lower(self, *arguments: Any) -> Any:
        return self.function.lower(*arguments, **self.options)

    def trace(self, *arguments: Any) -> Any:
        return self.function.trace(*arguments, **self.options)
