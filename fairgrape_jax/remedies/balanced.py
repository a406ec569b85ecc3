"""Group-balanced sampling: every epoch meets equally many samples of every group."""

from __future__ import annotations

import numpy as np

from fairgrape_jax.remedies.base import Ingredient


def order(groups: np.ndarray, num_groups: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch of as many samples as before, equally many of each group.

    A small group's samples come several times, those of a large one take turns over epochs: each
    group goes through permutations of its samples, one after another. Samples in no group are not
    met.

    Args:
        groups: (N,) int, -1 for a sample in none.
        num_groups: how many groups there are.
        seed: of the run.
        epoch: its number.

    Returns:
        (N,) places of samples.

    Example:
        >>> places = order(np.array([0, 0, 0, 0, 0, 1]), 2, seed=0, epoch=3)
        >>> (places == 5).sum().item(), len(places)
        (3, 6)
    """
    present = [g for g in range(num_groups) if (groups == g).any()]
    if not present:
        return np.random.default_rng([seed, epoch]).permutation(len(groups))
    shares = np.full(len(present), len(groups) // len(present))
    # The groups that get one more take turns over epochs.
    more = (np.arange(len(groups) % len(present)) + epoch) % len(present)
    shares[more] += 1
    drawn = [
        _cycle(np.flatnonzero(groups == g), int(share), seed, epoch, g)
        for g, share in zip(present, shares, strict=True)
    ]
    return np.random.default_rng([seed, epoch, num_groups]).permutation(np.concatenate(drawn))


def _cycle(places: np.ndarray, share: int, seed: int, epoch: int, group: int) -> np.ndarray:
    """`share` places from where the epochs before have stopped, through permutations."""
    most = share + 1  # of an epoch, so that epochs begin where none before has been
    begin = epoch * most
    first, last = begin // len(places), (begin + share - 1) // len(places)
    rounds = [
        np.random.default_rng([seed, group, number]).permutation(places)
        for number in range(first, last + 1)
    ]
    offset = begin - first * len(places)
    return np.concatenate(rounds)[offset : offset + share] if rounds else places[:0]


ROW = Ingredient(
    "equally many samples of every group in each epoch",
    options=lambda remedy: remedy.balanced or None,
    order=order,
)
