"""Draw the micro-batches that importance is scored on, each of one group."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fairgrape_jax.data.dataset import Split
from fairgrape_jax.errors import UsageError


class GroupBatches(NamedTuple):
    """Micro-batches of one group each, by index into the split.

    Attributes:
        indices: (M, size) int32, places of samples in the split.
        valid: (M, size) bool, False on padding.
        group: (M,) int32, the group of each micro-batch.
    """

    indices: np.ndarray
    valid: np.ndarray
    group: np.ndarray


def group_batches(
    split: Split,
    fraction: float,
    size: int,
    num_groups: int,
    seed: int,
    *,
    over: str | tuple[int, ...] = "groups",
    samples: int = 0,
) -> GroupBatches:
    """Micro-batches that importance is scored on.

    The micro-batch is part of the definition of importance (a square per micro-batch is summed),
    so it is given by the user and does not depend on the number of devices. The groups'
    micro-batches are interleaved as evenly as their numbers allow, so that any stretch of them has
    nearly the mix of the whole. Padding repeats the first sample of its micro-batch. A group
    without samples has no micro-batch; samples in no group are in none, with "classes" they are
    drawn like others.

    Args:
        split: What is drawn from.
        fraction: The part of each group that is drawn, ceil(fraction * samples), whatever the other
            groups are.
        size: Samples of a micro-batch.
        num_groups: How many groups there are.
        seed: Seed of the draw.
        over: "groups"; "all": the same samples, shuffled, all as group 0; a tuple of groups: those
            of their samples; "classes": as many in all, equally many of every class of the first
            task.
        samples: So many of all together, of every class with "classes", in place of the fraction;
            not of groups. 0 for the fraction.

    Returns:
        The micro-batches.

    Raises:
        UsageError: `fraction` is not in (0, 1], or `size` below 1.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction={fraction}: must be above 0 and at most 1")
    if size < 1:
        raise UsageError(f"size={size}: a micro-batch needs at least 1 sample")
    if over == "classes":
        drawn = _draw_balanced(split.labels[:, 0], fraction, seed, samples)
    else:
        chosen = over if isinstance(over, tuple) else range(num_groups)
        part = 1.0 if samples and over != "groups" else fraction
        drawn = [_drawn(split.groups, group, part, seed) for group in chosen]
    if over != "groups":
        # A stream that no group uses: group numbers end at num_groups - 1.
        drawn = [np.random.default_rng([seed, num_groups]).permutation(np.concatenate(drawn))]
        if samples and over != "classes":
            drawn = [drawn[0][:samples]]
    cut = [_cut(members, size) for members in drawn]
    counts = [len(indices) for indices, _ in cut]
    group = np.repeat(np.arange(len(cut), dtype=np.int32), counts)
    order = _interleave(counts)
    indices, valid = (np.concatenate(parts)[order] for parts in zip(*cut, strict=True))
    return GroupBatches(indices, valid, group[order])


def _drawn(groups: np.ndarray, group: int, fraction: float, seed: int) -> np.ndarray:
    members = np.flatnonzero(groups == group)
    # 0.07 * 100 is 7.000000000000001 in floating point; that must not draw an eighth sample.
    count = math.ceil(fraction * len(members) - 1e-9)
    return np.random.default_rng([seed, group]).permutation(members)[: max(count, 1)]


def _draw_balanced(
    labels: np.ndarray, fraction: float, seed: int, samples: int
) -> list[np.ndarray]:
    """Of each class that occurs equally many samples, and at most as many as the rarest has."""
    classes, sizes = np.unique(labels, return_counts=True)
    count = samples or math.ceil(fraction * len(labels) / len(classes) - 1e-9)
    each = min(count, int(sizes.min()))
    members = [np.flatnonzero(labels == label) for label in classes]
    return [
        np.random.default_rng([seed, label]).permutation(indices)[:each]
        for label, indices in zip(classes, members, strict=True)
    ]


def _cut(members: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `size` indices and their validity; the last row may be partial."""
    rows = -(-len(members) // size)
    position = np.arange(rows * size).reshape(rows, size)
    valid = position < len(members)
    chosen = np.where(valid, position, position[:, :1])
    return members[chosen].astype(np.int32), valid


def _interleave(counts: list[int]) -> np.ndarray:
    """Order of rows listed group by group that spreads each group evenly from first to last."""
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.argsort(place, kind="stable")
