"""Which pictures train, validate and test: by seed, by folds, or as their authors split them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from fairgrape_jax.data.sources.base import SPLIT_STREAM, stream, three_ways
from fairgrape_jax.errors import UsageError

Rule = Literal["content", "source", "given"]
NAMES = ("train", "validation", "test")


class Division(NamedTuple):
    """How pictures are divided into training, validation and test.

    Attributes:
        by: What is kept on one side: pictures of one source and equal files (content), pictures of
            one source (source); given: the split of the dataset's authors.
        fold: "i/k" to test on part i of k, validate on the next and train on the rest; "" for
            80/10/10.
        seed: Seed of the draw.
    """

    by: Rule
    fold: str
    seed: int


def sides(columns: dict[str, np.ndarray], division: Division) -> list[np.ndarray]:
    """Divide the records of a dataset.

    Args:
        columns: Of a prepared dataset.
        division: How.

    Returns:
        Record numbers of the training, validation and test pictures, sorted by name.

    Raises:
        UsageError: There is no such fold, or the authors gave no such splits.
    """
    order = np.lexsort((columns["digest"].view("S32"), columns["name"]))
    if division.by == "given":
        if division.fold:
            raise UsageError("fold: needs splits by seed; leave out split_by=given")
        side = _by_listing(columns, division.seed)
    else:
        units = unit_of(columns, content=division.by == "content")
        side = _by_seed(units, division)
    return [order[side[order] == number] for number in range(3)]


def unit_of(columns: dict[str, np.ndarray], *, content: bool) -> np.ndarray:
    """Number what must not be split: a source; with content, what equals it too.

    Numbered by the least name of a source, or by the least digest, so that a split does not depend
    on the order of the records.

    Args:
        columns: Of a prepared dataset; `source` and `digest` of N records.
        content: Whether equal files belong together.

    Returns:
        (N,) numbers from 0.
    """
    sources, by_source = np.unique(columns["source"], return_inverse=True)
    if not content:
        return by_source
    digests, by_digest = np.unique(columns["digest"].view("S32"), return_inverse=True)
    if len(sources) == len(by_source):
        return by_digest
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # Sources and digests are the nodes of a graph, records its edges.
    nodes = len(sources) + len(digests)
    edges = coo_matrix(
        (np.ones(len(by_source), bool), (by_source, by_digest + len(sources))), (nodes, nodes)
    )
    part = connected_components(edges, directed=False)[1][by_source]
    least = np.full(part.max() + 1, len(digests))
    np.minimum.at(least, part, by_digest)
    return np.unique(least[part], return_inverse=True)[1]


def _by_seed(units: np.ndarray, division: Division) -> np.ndarray:
    rng = stream(division.seed, SPLIT_STREAM)
    count = int(units.max()) + 1
    if not division.fold:
        return three_ways(count, rng)[units]
    i, k = parse_fold(division.fold)
    if k > count:
        raise UsageError(f"fold={division.fold}: only {count} sources to make folds of")
    fold = np.empty(count, np.int64)
    fold[rng.permutation(count)] = np.arange(count) * k // count
    side = np.zeros(count, np.int64)
    side[fold == i % k] = 1
    side[fold == i - 1] = 2
    return side[units]


def parse_fold(text: str) -> tuple[int, int]:
    """The numbers of a fold.

    Args:
        text: "i/k".

    Returns:
        (i, k).

    Raises:
        UsageError: It is not, or not 1 <= i <= k and k >= 3.

    Example:
        >>> parse_fold("2/5")
        (2, 5)
    """
    i, _, k = text.partition("/")
    if not (i.isdecimal() and k.isdecimal() and 1 <= int(i) <= int(k) and int(k) >= 3):
        raise UsageError(f"fold={text!r}: give i/k with i from 1 to k and k at least 3, as 1/5")
    return int(i), int(k)


def _by_listing(columns: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """The authors' splits; validation and test that they did not give are tenths of train."""
    present = set(np.unique(columns["split"]).astype(str).tolist())
    if not present <= set(NAMES) or "train" not in present:
        raise UsageError(
            f"split_by=given: the dataset has the splits {', '.join(sorted(present))}; "
            "train, validation and test are needed; leave out split_by"
        )
    side = np.array([NAMES.index(split) for split in columns["split"].astype(str).tolist()])
    units = unit_of(columns, content=True)
    rng = stream(seed, SPLIT_STREAM)
    free = rng.permutation(np.unique(units[side == 0]))
    tenth = len(free) // 10
    for number, split in enumerate(NAMES):
        if split not in present:
            taken, free = free[:tenth], free[tenth:]
            side[np.isin(units, taken) & (side == 0)] = number
    return side
