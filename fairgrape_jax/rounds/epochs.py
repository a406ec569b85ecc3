"""The epochs of training stages, one after another, and a stage in two."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from fairgrape_jax.config import Stage
from fairgrape_jax.systems.options import epochs_before_choice


class Epoch(NamedTuple):
    """An epoch of the plan: its learning rate, whether the best is sought, whether it is the last
    of its stage."""

    rate: float
    seeks_best: bool
    ends_stage: bool


def split_stage(stage: Stage, part: float) -> tuple[Stage, Stage]:
    """A stage in two: a part of its epochs, at least one where it has any, and the rest.

    Args:
        stage: what is split.
        part: of its epochs, 0 to 1, rounded.

    Returns:
        The first, which ends with its last epoch and seeks no best one, and the second.

    Example:
        >>> split_stage(Stage((2, 1), (0.1, 0.01), best=True), 0.5)[1]
        Stage(epochs=(1,), rates=(0.01,), best=True)
    """
    rates = [r for n, r in zip(stage.epochs, stage.rates, strict=True) for _ in range(n)]
    count = epochs_before_choice(len(rates), part)

    def joined(rates: Sequence[float], best: bool) -> Stage:
        pieces = [(len(list(same)), rate) for rate, same in itertools.groupby(rates)]
        return Stage(tuple(n for n, _ in pieces), tuple(r for _, r in pieces), best)

    return joined(rates[:count], False), joined(rates[count:], stage.best)


def plan_epochs(stages: Sequence[Stage]) -> list[Epoch]:
    """The epochs of stages, one after another.

    Args:
        stages: what to go through.

    Example:
        >>> stages = [Stage((2,), (0.1,)), Stage((1,), (0.01,), best=True)]
        >>> [tuple(epoch) for epoch in plan_epochs(stages)]
        [(0.1, False, False), (0.1, False, True), (0.01, True, True)]
    """
    plan = []
    for stage in stages:
        pieces = zip(stage.epochs, stage.rates, strict=True)
        rates = [rate for count, rate in pieces for _ in range(count)]
        plan += [Epoch(rate, stage.best, i + 1 == len(rates)) for i, rate in enumerate(rates)]
    return plan
