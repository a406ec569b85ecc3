"""How the density falls from round to round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fairgrape_jax.errors import UsageError


def rounds(sparsity: float, keep_per_round: float) -> int:
    """The number of rounds: ceil(log(1 - sparsity) / log(keep_per_round)).

    Source: FairGRAPE, Algorithm 1 (Iters = ceil(log_r c)); a target that a whole number of rounds
    meets exactly is not pushed over by rounding.

    >>> rounds(0.9, 0.9), rounds(0.99, 0.9), rounds(0.5, 0.9), rounds(0.9, 0.975)
    (22, 44, 7, 91)
    >>> rounds(0.75, 0.5)
    2
    """
    exact = math.log1p(-sparsity) / math.log(keep_per_round)
    return max(1, math.ceil(exact - 1e-9))


def geometric(sparsity: float, count: int) -> list[float]:
    """The same part of the weights left is pruned each round.

    >>> [round(density, 3) for density in geometric(0.75, 2)]
    [0.5, 0.25]
    """
    return [(1 - sparsity) ** (i / count) for i in range(1, count + 1)]


def linear(sparsity: float, count: int) -> list[float]:
    """The same number of weights is pruned each round.

    >>> linear(0.75, 3)
    [0.75, 0.5, 0.25]
    """
    return [1 - sparsity * i / count for i in range(1, count + 1)]


def cubic(sparsity: float, count: int) -> list[float]:
    """Many weights are pruned at first and few at the end: 1 - density = s - s (1 - i/n)^3.

    Source: AGP, Zhu and Gupta, "To Prune, or Not to Prune" (2017), Eq. 1, from sparsity 0.

    >>> cubic(0.75, 3)
    [0.4722..., 0.2777..., 0.25]
    """
    return [1 - sparsity * (1 - (1 - i / count) ** 3) for i in range(1, count + 1)]


def one_shot(sparsity: float, count: int) -> list[float]:
    """Everything at once, whatever `count` is.

    >>> one_shot(0.75, 1)
    [0.25]
    """
    return [1 - sparsity]


SCHEDULES: dict[str, Callable[[float, int], list[float]]] = {
    "geometric": geometric,
    "linear": linear,
    "cubic": cubic,
    "one-shot": one_shot,
}


def densities(
    sparsity: float,
    keep_per_round: float,
    *,
    schedule: str = "geometric",
    count: int = 0,
    given: Sequence[float] = (),
) -> list[float]:
    """The density after each round; the last round lands on the target exactly.

    given: the densities themselves, in place of everything else. count: how many rounds; 0 for as
    many as FairGRAPE's formula gives, and then "geometric" is the paper's keep_per_round ** i.
    UsageError if `given` does not fall from round to round, or leaves (0, 1).

    >>> densities(0.8, 0.5)
    [0.5, 0.25, 0.2]
    >>> densities(0.8, 0.5, schedule="linear", count=2)
    [0.6, 0.2]
    """
    if given:
        falling = all(after < before for before, after in zip([1.0, *given], given, strict=False))
        if not falling or given[-1] <= 0:
            raise UsageError(
                f"densities: {', '.join(map(str, given))} must fall from below 1 to above 0"
            )
        return list(given)
    target = round(1.0 - sparsity, 12)
    formula = rounds(sparsity, keep_per_round)
    if schedule == "geometric" and count in (0, formula):
        return [max(keep_per_round**i, target) for i in range(1, formula)] + [target]
    return [*SCHEDULES[schedule](sparsity, count or formula)[:-1], target]


def falling_densities(
    sparsity: float,
    rounds: int = 0,
    *,
    keep_per_round: float = 0.9,
    schedule: str = "geometric",
) -> list[float]:
    """The density after each round; the last one is 1 - sparsity exactly.

    Args:
        sparsity: the part of the prunable weights to remove in the end, between 0 and 1.
        rounds: how many; 0 for as many as `keep_per_round` takes (FairGRAPE, Algorithm 1).
        keep_per_round: the part of the weights that a round keeps, where `rounds` is 0.
        schedule: one of SCHEDULES: "geometric", "linear", "cubic" or "one-shot".

    Raises:
        ValueError: a number out of its range, or an unknown schedule.

    Example:
        >>> falling_densities(0.75, rounds=2), falling_densities(0.8, keep_per_round=0.5)
        ([0.5, 0.25], [0.5, 0.25, 0.2])
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity: {sparsity} is not between 0 and 1")
    if rounds < 0 or rounds != int(rounds):
        raise ValueError(f"rounds: {rounds} is not a whole number of 0 or more")
    if not 0 < keep_per_round < 1:
        raise ValueError(f"keep_per_round: {keep_per_round} is not between 0 and 1")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: {schedule!r} is none of {', '.join(SCHEDULES)}")
    if rounds and schedule == "geometric":
        return [*geometric(sparsity, int(rounds))[:-1], round(1 - sparsity, 12)]
    return densities(sparsity, keep_per_round, schedule=schedule, count=int(rounds))
