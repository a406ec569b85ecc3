"""A pass over batches: a step folded over all of them, without a stop.

A run passes another `Fold`, one that can be stopped and goes on from there
(`storage.resumable.Passes`). Whoever folds needs not know which one it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

# What a pass computes, as plain values. Two passes of a stage that differ must differ in it; its
# "pass" is a word for messages: scoring, evaluation, clustering.
Key = Mapping[str, Any]


class Fold(Protocol):
    """A function that folds a step over batches."""

    def __call__(
        self,
        step: Callable[[Any, Any], Any],
        initial: Any,
        batches: Callable[[int], Iterable[Any]],
        *,
        key: Key,
        finish: Callable[[Any], list[Any]] = list,
    ) -> list[Any]:
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
    step: Callable[[Any, Any], Any],
    initial: Any,
    batches: Callable[[int], Iterable[Any]],
    *,
    key: Key,
    finish: Callable[[Any], list[Any]] = list,
) -> list[Any]:
    """The plain `Fold`: every batch from the first on, nothing kept.

    >>> fold(lambda total, x: total + x, 0, lambda begin: range(begin, 4), key={},
    ...      finish=lambda total: [total])
    [6]
    """
    return finish(functools.reduce(step, batches(0), initial))
