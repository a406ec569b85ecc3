"""Labels of the places of every axis: places that are pruned together are joined to one.

Every place (one index of one axis of a value) has a label. Operations hand labels on, or join those
of their operands; what cannot be followed, an input and an output mark the labels that they touch,
with a reason, and whatever is joined with these stays whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

Places: TypeAlias = np.ndarray  # the labels of one axis, int

# Reasons for which places stay whole.
ALONG = "a convolution along it"
SINGLE = "an axis of one place"
IN_GROUPS = "a convolution in groups"
LOOKUP = "a lookup along it"


class Axes(NamedTuple):
    """The labels of a value.

    Attributes:
        places: of each axis.
        vanishes: for each axis, whether the value is 0 at the places that are pruned, once the
            weights there are.
        zero: whether the value is 0 everywhere.
    """

    places: tuple[Places, ...]
    vanishes: tuple[bool, ...]
    zero: bool = False


class Labels:
    """All labels of a program: which are joined, and which have to stay, and why."""

    def __init__(self) -> None:
        self.count = 0
        self._contracted: set[tuple[frozenset[int], int]] = set()
        self._left: list[Places] = []
        self._right: list[Places] = []
        self._marks: list[tuple[Places, str, bool]] = []

    def fresh(self, size: int) -> Places:
        """New labels for an axis.

        Args:
            size: how many places it has.
        """
        self.count += size
        return np.arange(self.count - size, self.count)

    def join(self, left: Places, right: Places) -> None:
        """Make labels one, place by place.

        Args:
            left: labels.
            right: as many, or one for all.
        """
        if left is not right:
            self._left.append(np.ravel(left))
            self._right.append(np.broadcast_to(right, np.shape(left)).ravel())

    def mark(self, places: Places, reason: str, *, soft: bool = False) -> None:
        """Keep labels whole.

        Args:
            places: labels.
            reason: in words that follow "because of".
            soft: whether the operation can be run with some of them left out all the same.
        """
        self._marks.append((np.ravel(places), reason, soft))

    def contract(self, axes: Axes, axis: int) -> None:
        """Note that a product takes the sum along an axis of a value.

        Args:
            axes: the value.
            axis: the axis.
        """
        self._contracted.add((frozenset(map(id, axes.places)), id(axes.places[axis])))

    def is_contracted(self, axes: Axes, axis: int) -> bool:
        """Whether a product takes the sum along an axis of a value, or of one of the same axes.

        Args:
            axes: the value.
            axis: the axis.
        """
        return (frozenset(map(id, axes.places)), id(axes.places[axis])) in self._contracted

    def whole(self, size: int, reason: str) -> Places:
        """New labels that stay whole.

        Args:
            size: how many.
            reason: as for `mark`.
        """
        places = self.fresh(size)
        self.mark(places, reason)
        return places

    def components(self) -> np.ndarray:
        """The component of every label, of those that are joined so far."""
        if not self._left:
            return np.arange(self.count)
        # Not imported before it is used: `import fairgrape_jax` and `fg.prune` do without SciPy.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        left, right = np.concatenate(self._left), np.concatenate(self._right)
        edges = coo_array((np.ones(len(left), bool), (left, right)), (self.count, self.count))
        return connected_components(edges, directed=False)[1]

    def reasons(self, components: np.ndarray, *, soft: bool = True) -> dict[int, str]:
        """The first reason for which each component stays whole.

        Args:
            components: of every label.
            soft: whether those of `mark(soft=True)` count.
        """
        result: dict[int, str] = {}
        for places, reason, is_soft in self._marks:
            if soft or not is_soft:
                for component in np.unique(components[places]).tolist():
                    result.setdefault(component, reason)
        return result

    def stay(self, components: np.ndarray) -> np.ndarray:
        """Whether each label stays whole, by what is known so far.

        Args:
            components: of every label.
        """
        marked = np.zeros(components.max(initial=-1) + 1, bool)
        for places, _, _ in self._marks:
            marked[components[places]] = True
        return marked[components]


def reshape(
    labels: Labels, axes: Axes, before: Sequence[int], after: Sequence[int]
) -> tuple[Places, ...]:
    """The labels of a value in another shape.

    Axes that are merged keep the labels of the only one of them that can be pruned; one that is
    split gives them to the part along which they differ, or else joins all places of an outer one.

    Args:
        labels: of the program.
        axes: of the value before.
        before: its shape.
        after: its new shape, of the same size.
    """
    reason = "a reshape that mixes channels"
    result = [labels.whole(size, SINGLE) if size == 1 else None for size in after]
    for place, size in zip(axes.places, before, strict=True):
        if size == 1:
            labels.mark(place, SINGLE)
    for old, new in _blocks(before, after):
        if len(old) == len(new) == 1:
            result[new[0]] = axes.places[old[0]]
            continue
        if len(old) > 1 and len(new) > 1:
            for axis in old:
                labels.mark(axes.places[axis], reason)
            merged = labels.whole(math.prod(before[axis] for axis in old), reason)
        elif len(old) > 1:
            merged = _merge(labels, [axes.places[axis] for axis in old], reason)
        else:
            merged = axes.places[old[0]]
        if len(new) == 1:
            result[new[0]] = merged
            continue
        for axis, places in zip(
            new, _split(labels, merged, [after[axis] for axis in new]), strict=True
        ):
            result[axis] = places
    return tuple(places for places in result if places is not None)


def _blocks(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The axes of two shapes that hold the same places, axes of one place left out.

    >>> _blocks((2, 3, 4, 1), (2, 12))
    [((0,), (0,)), ((1, 2), (1,))]
    """
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    if 0 in (*before, *after):
        return [(tuple(old), tuple(new))]
    blocks = []
    while old or new:
        left, right = [old.pop(0)], [new.pop(0)]
        sizes = [before[left[0]], after[right[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                left.append(old.pop(0))
                sizes[0] *= before[left[-1]]
            else:
                right.append(new.pop(0))
                sizes[1] *= after[right[-1]]
        blocks.append((tuple(left), tuple(right)))
    return blocks


def _merge(labels: Labels, parts: Sequence[Places], reason: str) -> Places:
    stay = labels.stay(labels.components())
    free = [axis for axis, places in enumerate(parts) if not stay[places].all()]
    axis = max(free, key=lambda axis: len(parts[axis])) if free else 0
    for other, places in enumerate(parts):
        if other != axis and other in free:
            labels.mark(places, reason)
    shape = [1] * len(parts)
    shape[axis] = len(parts[axis])
    return np.broadcast_to(parts[axis].reshape(shape), list(map(len, parts))).ravel()


def _split(labels: Labels, places: Places, sizes: Sequence[int]) -> list[Places]:
    components = labels.components()
    cube = components[places].reshape(sizes)
    inside = "an axis that was split"
    for axis in range(len(sizes)):
        line = np.moveaxis(cube, axis, 0).reshape(sizes[axis], -1)
        if (line == line[:, :1]).all():
            break
    else:
        axis = 0
        rows = places.reshape(sizes[0], -1)
        labels.join(rows, rows[:, :1])
    kept = np.moveaxis(places.reshape(sizes), axis, 0).reshape(sizes[axis], -1)[:, 0]
    return [
        kept if other == axis else labels.whole(size, inside) for other, size in enumerate(sizes)
    ]
