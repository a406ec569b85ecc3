"""Groups of structures of one kind, from the labels of a network's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fairgrape_jax.structures.following import Followed
from fairgrape_jax.structures.labels import ALONG, IN_GROUPS, LOOKUP, SINGLE


@dataclasses.dataclass(frozen=True)
class Member:
    """Where the structures of a group lie in one axis of one array.

    Attributes:
        leaf: the number of the array among the leaves of the parameters.
        axis: of the array.
        places: (structures, places of each) int, the indices along the axis.
    """

    leaf: int
    axis: int
    places: np.ndarray


@dataclasses.dataclass(frozen=True)
class Group:
    """Structures of one kind: the channels of a layer, or of all layers of a residual stage.

    Attributes:
        name: the layer that makes them, as `layer_names` has it.
        members: where they lie.
    """

    name: str
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """How many structures there are."""
        return len(self.members[0].places)


class _Line(NamedTuple):
    """One axis of one leaf: when the network first uses it, and the components of its places."""

    order: int
    leaf: int
    axis: int
    components: np.ndarray


# What a structure holds of the parameters: leaf, axis, and how many places along it.
Kind = tuple[tuple[int, int, int], ...]


def find_groups(
    followed: Followed, names: Sequence[str]
) -> tuple[tuple[Group, ...], dict[str, str]]:
    """The groups of structures of a network, and the layers whose outputs stay whole.

    Args:
        followed: its program, the parameters being its first inputs.
        names: the paths of the parameters.

    Returns:
        The groups in the order in which the network first uses them, and why each layer that makes
        none of them stays whole.
    """
    reasons = followed.labels.reasons(followed.components)
    lines = list(_lines(followed, len(names)))
    held: dict[int, list[tuple[int, int, int]]] = {}
    for line in lines:
        for component, count in zip(*np.unique(line.components, return_counts=True), strict=True):
            if component not in reasons:
                held.setdefault(int(component), []).append((line.leaf, line.axis, int(count)))
    kinds: dict[Kind, list[int]] = {}
    for component, places in held.items():
        kinds.setdefault(tuple(places), []).append(component)
    by_axis = {(line.leaf, line.axis): line.components for line in lines}
    groups: list[Group] = []
    for kind, members in kinds.items():
        maker = layer(names[kind[0][0]])
        same = sum(group.name.partition(":")[0] == maker for group in groups)
        name = f"{maker}:{same + 1}" if same else maker
        groups.append(Group(name, _members(kind, members, by_axis)))
    return tuple(groups), _whole(followed, names, lines, reasons)


def layer(name: str) -> str:
    """The name of the layer of a leaf: its path without "kernel", "bias" or the like.

    Args:
        name: the path.

    Example:
        >>> layer("conv1/kernel"), layer("conv1/kernel/value"), layer("0"), layer("kernel")
        ('conv1', 'conv1', '0', 'layer')
    """
    *modules, last = name.removesuffix("/value").split("/")
    return "/".join(modules) or ("layer" if last == "kernel" else last)


def _lines(followed: Followed, leaves: int) -> Iterator[_Line]:
    """The axes of all leaves that the network uses, in the order of their use."""
    program = followed.program
    first: dict[int, int] = {}
    for order, equation in enumerate(program.equations):
        for atom in equation.inputs:
            if isinstance(atom, int):
                first.setdefault(atom, order)
    used = [leaf for leaf in range(leaves) if program.inputs[leaf] in first]
    for leaf in sorted(used, key=lambda leaf: first[program.inputs[leaf]]):
        number = program.inputs[leaf]
        for axis, places in enumerate(followed.axes[number].places):
            yield _Line(first[number], leaf, axis, followed.components[places])


def _members(
    kind: Kind, members: Sequence[int], by_axis: dict[tuple[int, int], np.ndarray]
) -> tuple[Member, ...]:
    """The places of the structures of a kind, numbered in the order of their first axis."""
    leaf, axis, _ = kind[0]
    firsts = {int(c): i for i, c in reversed(list(enumerate(by_axis[leaf, axis])))}
    ranks = {c: rank for rank, c in enumerate(sorted(members, key=firsts.__getitem__))}
    result = []
    for leaf, axis, count in sorted(kind):
        rank = np.array([ranks.get(int(c), -1) for c in by_axis[leaf, axis]])
        order = np.argsort(rank, kind="stable")
        result.append(Member(leaf, axis, order[(rank < 0).sum() :].reshape(len(ranks), count)))
    return tuple(result)


def _whole(
    followed: Followed, names: Sequence[str], lines: Sequence[_Line], reasons: dict[int, str]
) -> dict[str, str]:
    """Why each kernel whose outputs cannot be pruned stays whole."""
    whole: dict[str, str] = {}
    for line in lines:
        axes = followed.axes[followed.program.inputs[line.leaf]]
        if len(axes.places) < 2 or followed.labels.is_contracted(axes, line.axis):
            continue
        why = [reasons.get(int(component)) for component in line.components]
        if why and all(why) and why[0] not in (ALONG, SINGLE, IN_GROUPS, LOOKUP):
            whole.setdefault(layer(names[line.leaf]), str(why[0]))
    return whole
