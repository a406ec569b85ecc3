"""A pass over batches: a step folded over all of them, without a stop.

A run passes another `Fold`, one that can be stopped and goes on from there
(`storage.resumable.Passes`). Whoever folds needs not know which one it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

# What a pass computes, as plain values. Two passes of a stage that differ must differ in it; its
# "pass" is a word for messages: scoring, evaluation, clustering.
Key = Mapping[str, Any]

G = TypeVar("G")  # what is gathered
B = TypeVar("B")  # a batch
Arrays = list[Any]  # of JAX or NumPy


class Fold(Protocol):
    """A function that folds a step over batches."""

    def __call__(
        self,
        step: Callable[[G, B], G],
        initial: G,
        batches: Callable[[int], Iterable[B]],
        *,
        key: Key,
        finish: Callable[[Any], Arrays] = list,
    ) -> Arrays:
        """Fold, then finish.

        Args:
            step: (gathered, batch) -> gathered; batch 0 comes first.
            initial: what is gathered before the first batch: a pytree of arrays whose structure,
                shapes and placement the step keeps, or an empty list to which it adds arrays.
            batches: begin -> the batches from number `begin` on.
            key: what is computed.
            finish: gathered -> a list of arrays, what the pass amounts to.

        Returns:
            What `finish` returns, or the same values in NumPy arrays.
        """


def fold(
    step: Callable[[G, B], G],
    initial: G,
    batches: Callable[[int], Iterable[B]],
    *,
    key: Key,
    finish: Callable[[Any], Arrays] = list,
) -> Arrays:
    """The plain `Fold`: every batch from the first on, nothing kept.

    Args:
        step: as for `Fold`.
        initial: likewise.
        batches: likewise.
        key: likewise; it is not looked at.
        finish: likewise.

    Example:
        >>> step, batches = (lambda total, x: total + x), (lambda begin: range(begin, 4))
        >>> fold(step, 0, batches, key={}, finish=lambda total: [total])
        [6]
    """
    return finish(functools.reduce(step, batches(0), initial))
