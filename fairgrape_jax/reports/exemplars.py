"""The samples that compression changed: how many of each group, which ones, what they look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fairgrape_jax.reports.blocks import Block, Folded, Pictures, Table, Text
from fairgrape_jax.reports.precision import number

IDS_LISTED = 200  # of a set
LETTERS_SHOWN = 240  # of these ids; the others are folded
EXEMPLARS = (
    "Samples of which every compressed model says something else than its dense model does (PIEs). "
    "Look at them one by one: they are where compression shows."
)


def count_table(
    changes: Mapping[str, np.ndarray], members: np.ndarray, groups: Sequence[str]
) -> Table:
    """How many samples of each group each set of models changed.

    Args:
        changes: of each set (N,) bool, the samples.
        members: (N,) the group of each, -1 for none.
        groups: names of the groups.

    Returns:
        A row for each group, and one for all.
    """
    in_group = members >= 0
    sizes = [*np.bincount(members[in_group], minlength=len(groups)), len(members)]
    rows = [[name, f"{size:,}"] for name, size in zip([*groups, "all"], sizes, strict=True)]
    for changed in changes.values():
        counts = np.bincount(members[in_group & changed], minlength=len(groups))
        for row, count, size in zip(rows, [*counts, changed.sum()], sizes, strict=True):
            share = number(100 * count / size if size else np.nan, 1 if size >= 100 else 0)
            row.append(f"{count:,} ({share} %)")
    return Table(["PIEs of", "samples", *changes], rows)


def listed(
    name: str,
    changed: np.ndarray,
    *,
    id_of: Callable[[int], str],
    thumbnails: Mapping[int, str] | None = None,
) -> list[Block]:
    """The first samples that a set of models changed, by id, with their pictures.

    Args:
        name: of the set of models.
        changed: (N,) bool, the samples.
        id_of: the id of a sample from its place.
        thumbnails: pictures of some of them by place, as data: addresses.

    Returns:
        A text and the pictures; nothing where it changed none.
    """
    if not changed.any():
        return []
    places = np.flatnonzero(changed)
    ids = [id_of(int(place)) for place in places[:IDS_LISTED]]
    count = max(1, int(np.searchsorted(np.cumsum([len(x) + 2 for x in ids]), LETTERS_SHOWN)))
    left = f" and {len(places) - count:,} more" * (len(places) > count)
    blocks: list[Block] = [Text(f"{name}: {', '.join(ids[:count])}{left}.")]
    if len(ids) > count:
        which = f"{name}: {'the next' if len(places) > IDS_LISTED else 'the other'}"
        rest = ids[count:]
        blocks.append(Folded(f"{which} {len(rest)}", [Text(", ".join(rest))]))
    shown = [int(place) for place in places if thumbnails and place in thumbnails]
    if thumbnails and shown:
        blocks.append(Pictures([(id_of(place), thumbnails[place]) for place in shown]))
    return blocks
