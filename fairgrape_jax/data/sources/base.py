"""Options every dataset shares, and the pure choices of samples that follow from them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from fairgrape_jax.data.dataset import Split
from fairgrape_jax.errors import UsageError

# Every use of a seed draws from a stream of its own, so that one choice cannot shift another.
SPLIT_STREAM, SHARE_STREAM, LIMIT_STREAM, PICTURE_STREAM = range(4)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a dataset comes from and what is taken of it."""

    path: str = ""
    """Folder or archive to read; empty: the sample inside the package, where there is one."""
    label: str = ""
    """Label column to predict; empty: the dataset's first."""
    group: str = ""
    """Group column to be fair over; empty: the dataset's first."""
    size: int = 0
    """Side of the pictures in pixels; 0: the dataset's own."""
    seed: int = 42
    """Seed of the split and of every draw."""
    minority: str = ""
    """Name of a group to make rare in the training split; empty: leave the groups as they are."""
    share: float = 0.0
    """Share of the minority in the training split, between 0 and 1."""
    limit: int = 0
    """Most training samples to use, and an eighth of it in validation and test; 0: all."""

    name: ClassVar[str] = ""
    LABELS: ClassVar[tuple[str, ...]] = ()
    GROUPS: ClassVar[tuple[str, ...]] = ()


def stream(seed: int, number: int) -> np.random.Generator:
    """The random stream `number` of `seed`."""
    return np.random.default_rng([seed, number])


def label_column(source: Source) -> str:
    """The label column asked for, or the first. UsageError if the dataset has no such column."""
    return _column("label", source.label, source.LABELS, source.name)


def group_column(source: Source) -> str:
    """The group column asked for, or the first. UsageError if the dataset has no such column."""
    return _column("group", source.group, source.GROUPS, source.name)


def check_options(source: Source, groups: tuple[str, ...]) -> None:
    """UsageError if an option is out of its range; `groups`: names of the chosen group column."""
    for name in ("size", "seed", "limit"):
        if getattr(source, name) < 0:
            raise UsageError(f"{name}={getattr(source, name)}: give 0 or more")
    if source.minority and source.minority not in groups:
        known = ", ".join(groups)
        raise UsageError(f"minority={source.minority!r}: no such group; known: {known}")
    if source.minority and not 0 < source.share < 1:
        raise UsageError(
            f"share={source.share}: the share of minority={source.minority!r} must be above 0"
            " and below 1"
        )
    if source.share and not source.minority:
        raise UsageError(f"share={source.share} without a minority: name the group to make rare")


def apportion(weights: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `weights` (G,) that add up to `total`: largest remainder.

    Every positive weight gets at least 1, if need be from the largest; the sum exceeds `total`
    where `total` is smaller than their number. Ties go to the lower index.

    >>> apportion(np.array([970, 25, 5]), 100).tolist()
    [97, 2, 1]
    """
    exact = weights * total / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    poor = (counts == 0) & (weights > 0)
    by_remainder = np.argsort(np.where(poor, 0, counts - exact), kind="stable")
    counts[poor] = 1
    spare = total - int(counts.sum())
    counts[by_remainder[: max(spare, 0)]] += 1
    for _ in range(-spare):
        rich = counts.argmax()
        counts[rich] -= counts[rich] > 1
    return counts


def share_indices(groups: np.ndarray, group_id: int, share: float, seed: int) -> np.ndarray:
    """Ascending indices of the samples that `with_share` keeps; groups: (N,) group ids."""
    minority, others = np.flatnonzero(groups == group_id), np.flatnonzero(groups != group_id)
    if not (len(minority) and len(others)):
        raise UsageError(
            f"group {group_id} has {len(minority)} of {len(groups)} samples: a share needs some"
            " of the group and some of others"
        )
    rng = stream(seed, SHARE_STREAM)
    wanted = _nearest(len(others) * share / (1 - share))
    if wanted <= len(minority):
        minority = rng.choice(minority, wanted, replace=False)
    else:
        affordable = _nearest(len(minority) * (1 - share) / share)
        others = rng.choice(others, min(affordable, len(others)), replace=False)
    return np.sort(np.concatenate([minority, others]))


def with_share(split: Split, group_id: int, share: float, seed: int) -> Split:
    """The split with group `group_id` at `share` (in (0, 1)) of the samples, in their old order.

    With m members and r others, random members are dropped until round(r share / (1 - share))
    are left. Where that is more than m, the members all stay and random others are dropped until
    round(m (1 - share) / share) are left. Halves round up, and at least 1 of either is kept.
    UsageError if the group has no samples, or all of them.
    """
    return split.take(share_indices(split.groups, group_id, share, seed))


def limit_indices(groups: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Ascending indices of the samples that `limited` keeps; groups: (N,) group ids."""
    if n >= len(groups):
        return np.arange(len(groups))
    rng = stream(seed, LIMIT_STREAM)
    counts = apportion(np.bincount(groups), n)
    drawn = [
        rng.choice(np.flatnonzero(groups == group), count, replace=False)
        for group, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(drawn))


def limited(split: Split, n: int, seed: int) -> Split:
    """At most `n` random samples, in their old order, with the group shares of the whole.

    Rounded by largest remainder; every group present keeps at least 1, so a limit below the
    number of groups gives one sample of each.
    """
    return split.take(limit_indices(split.groups, n, seed))


def kept_indices(
    source: Source, groups: np.ndarray, names: tuple[str, ...], *, training: bool
) -> np.ndarray:
    """Ascending indices of the samples of one split that the options keep; groups: (N,).

    In the training split first the minority's share is made, then the limit drawn; validation and
    test keep their shares and an eighth of the limit.
    """
    kept = np.arange(len(groups))
    if training and source.minority:
        kept = share_indices(groups, names.index(source.minority), source.share, source.seed)
    if source.limit:
        limit = source.limit if training else max(source.limit // 8, 1)
        kept = kept[limit_indices(groups[kept], limit, source.seed)]
    return kept


def three_ways(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) numbers 0, 1, 2 for training, validation, test: a random 80/10/10 split.

    >>> np.bincount(three_ways(25, np.random.default_rng(0))).tolist()
    [20, 2, 3]
    """
    part = np.empty(n, np.int64)
    part[rng.permutation(n)] = np.searchsorted([n * 8 // 10, n * 9 // 10], np.arange(n), "right")
    return part


def _column(kind: str, asked: str, known: tuple[str, ...], dataset: str) -> str:
    if asked and asked not in known:
        raise UsageError(
            f"{kind}={asked!r}: {dataset} has no such column; known: {', '.join(known)}"
        )
    return asked or known[0]


def _nearest(value: float) -> int:
    return max(int(value + 0.5), 1)
