"""Options every dataset shares, and the pure choices of samples that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from fairgrape_jax.data.dataset import Split
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage.schema import JsonObject

# Every use of a seed draws from a stream of its own, so that one choice cannot shift another.
SPLIT_STREAM, SHARE_STREAM, LIMIT_STREAM, PICTURE_STREAM = range(4)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How pictures on disk are read; the samples are the same in any case."""

    cache: Literal["auto", "memory", "disk"] = "auto"
    """Hold decoded pictures in memory, or read them when needed; auto: memory up to 4 GiB."""
    workers: int = 0
    """Processes that read ahead; 0: threads of this one."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The fields that cannot be used, and what is wrong with each."""
        if self.cache not in ("auto", "memory", "disk"):
            yield "cache", f"{self.cache!r} is not auto, memory or disk"
        if self.workers < 0:
            yield "workers", f"{self.workers} is negative; give 0 or more"


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
    """Most training samples to use; 0: all. Validation and test stay whole."""
    limit_evaluation: int = 0
    """Most validation samples, and most test samples, to use; 0: all."""

    name: ClassVar[str] = ""
    LABELS: ClassVar[tuple[str, ...]] = ()
    GROUPS: ClassVar[tuple[str, ...]] = ()


def upgrade_options(options: JsonObject) -> JsonObject:
    """Options that an earlier version stored, with what it meant by those it did not have.

    Args:
        options: Of a dataset, as plain values.

    Returns:
        The same, of this version.

    Example:
        >>> upgrade_options({"limit": 80})
        {'limit': 80, 'limit_evaluation': 10}
    """
    limit = options.get("limit")
    if not isinstance(limit, int) or not limit or "limit_evaluation" in options:
        return options
    return options | {"limit_evaluation": max(limit // 8, 1)}


def stream(seed: int, number: int) -> np.random.Generator:
    """A random stream.

    Args:
        seed: The seed that a user gives.
        number: Which of its streams, one for each use.

    Returns:
        Its generator, at its beginning.
    """
    return np.random.default_rng([seed, number])


def label_column(source: Source) -> str:
    """The label column asked for, or the first.

    Args:
        source: Options of a dataset with the columns `LABELS`.

    Returns:
        The name of the column.

    Raises:
        UsageError: The dataset has no such column.
    """
    return _column("label", source.label, source.LABELS, source.name)


def group_column(source: Source) -> str:
    """The group column asked for, or the first.

    Args:
        source: Options of a dataset with the columns `GROUPS`.

    Returns:
        The name of the column.

    Raises:
        UsageError: The dataset has no such column.
    """
    return _column("group", source.group, source.GROUPS, source.name)


def check_options(source: Source, groups: tuple[str, ...]) -> None:
    """Refuse options out of their range.

    Args:
        source: The options.
        groups: Names of the groups of the chosen column.

    Raises:
        UsageError: It names the option.
    """
    for name in ("size", "seed", "limit", "limit_evaluation"):
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
    """Whole numbers in proportion to weights, by largest remainder.

    Every positive weight gets at least 1, if need be from the largest. Ties go to the lower index.

    Args:
        weights: (G,) numbers of 0 or more.
        total: What the numbers add up to; more where it is smaller than the number of positive
            weights.

    Returns:
        (G,) int64.

    Example:
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
    """The samples that `with_share` keeps.

    Args:
        groups: (N,) group ids.
        group_id: The group to make rare.
        share: Its share, in (0, 1).
        seed: Seed of the draw.

    Returns:
        Ascending indices.

    Raises:
        UsageError: The group has no samples, or all of them.
    """
    minority, others = np.flatnonzero(groups == group_id), np.flatnonzero(groups != group_id)
    if not (len(minority) and len(others)):
        raise UsageError(
            f"group {group_id} has {len(minority)} of {len(groups)} samples: a share needs some"
            " of the group and some of others"
        )
    rng = stream(seed, SHARE_STREAM)
    target = _nearest(len(others) * share / (1 - share))
    if target <= len(minority):
        minority = rng.choice(minority, target, replace=False)
    else:
        affordable = _nearest(len(minority) * (1 - share) / share)
        others = rng.choice(others, min(affordable, len(others)), replace=False)
    return np.sort(np.concatenate([minority, others]))


def with_share(split: Split, group_id: int, share: float, seed: int) -> Split:
    """Make a group rare.

    With m members and r others, random members are dropped until round(r share / (1 - share))
    are left. Where that is more than m, the members all stay and random others are dropped until
    round(m (1 - share) / share) are left. Halves round up, and at least 1 of either is kept.

    Args:
        split: What to draw from.
        group_id: The group.
        share: Its share of the samples, in (0, 1).
        seed: Seed of the draw.

    Returns:
        The split of what is kept, in its old order.

    Raises:
        UsageError: The group has no samples, or all of them.
    """
    return split.take(share_indices(split.groups, group_id, share, seed))


def limit_indices(groups: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The samples that `limit_split` keeps.

    Args:
        groups: (N,) group ids; those in no group are drawn like one more.
        n: How many to keep at the most.
        seed: Seed of the draw.

    Returns:
        Ascending indices.
    """
    if n >= len(groups):
        return np.arange(len(groups))
    rng = stream(seed, LIMIT_STREAM)
    numbers = range(groups.min(initial=0), groups.max() + 1)  # from NO_GROUP on, if it is there
    members = [np.flatnonzero(groups == number) for number in numbers]
    counts = apportion(np.array(list(map(len, members))), n)
    drawn = [
        rng.choice(indices, count, replace=False)
        for indices, count in zip(members, counts, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def limit_split(split: Split, n: int, seed: int) -> Split:
    """At most `n` random samples, with the group shares of the whole.

    Rounded by largest remainder; every group present keeps at least 1, so a limit below the
    number of groups gives one sample of each.

    Args:
        split: What to draw from.
        n: How many to keep.
        seed: Seed of the draw.

    Returns:
        The split of what is kept, in its old order.
    """
    return split.take(limit_indices(split.groups, n, seed))


def kept_indices(
    source: Source, groups: np.ndarray, names: tuple[str, ...], *, training: bool
) -> np.ndarray:
    """The samples of one split that the options keep.

    In the training split first the minority's share is made, then the limit drawn; validation and
    test keep their shares, and have a limit of their own.

    Args:
        source: The options.
        groups: (N,) group ids of the split.
        names: Names of the groups.
        training: Whether it is the training split.

    Returns:
        Ascending indices.

    Raises:
        UsageError: The minority has no sample, or all.
    """
    kept = np.arange(len(groups))
    if training and source.minority:
        kept = share_indices(groups, names.index(source.minority), source.share, source.seed)
    if limit := source.limit if training else source.limit_evaluation:
        kept = kept[limit_indices(groups[kept], limit, source.seed)]
    return kept


def three_ways(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random 80/10/10 split.

    Args:
        n: The number of samples.
        rng: What is drawn from.

    Returns:
        (n,) int64: 0, 1, 2 for training, validation, test.

    Example:
        >>> np.bincount(three_ways(25, np.random.default_rng(0))).tolist()
        [20, 2, 3]
    """
    part = np.empty(n, np.int64)
    part[rng.permutation(n)] = np.searchsorted([n * 8 // 10, n * 9 // 10], np.arange(n), "right")
    return part


def _column(kind: str, name: str, known: tuple[str, ...], dataset: str) -> str:
    if name and name not in known:
        raise UsageError(
            f"{kind}={name!r}: {dataset} has no such column; known: {', '.join(known)}"
        )
    return name or known[0]


def _nearest(value: float) -> int:
    return max(int(value + 0.5), 1)
