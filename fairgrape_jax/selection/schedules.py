"""Pruning schedules: how the density falls from round to round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import as_real
from fairgrape_jax.selection.inputs import whole_number

MOST_ROUNDS = 100_000  # more are a slip: no network is retrained so often
DIGITS = 12  # of the last density: 1 - 0.9 is to be 0.1


def rounds(sparsity: float, keep_per_round: float) -> int:
    """The number of rounds: ceil(log(1 - sparsity) / log(keep_per_round)).

    A target that a whole number of rounds meets exactly is not pushed over by rounding.

    Args:
        sparsity: the part of the weights to prune in the end, between 0 and 1.
        keep_per_round: the part of the weights that a round keeps, between 0 and 1.

    Raises:
        UsageError: a number that is not between 0 and 1, or more than MOST_ROUNDS.

    Source:
        FairGRAPE, Algorithm 1 (Iters = ceil(log_r c)).

    Example:
        >>> rounds(0.9, 0.9), rounds(0.99, 0.9), rounds(0.5, 0.9), rounds(0.9, 0.975)
        (22, 44, 7, 91)
        >>> rounds(0.75, 0.5)
        2
    """
    exact = math.log1p(-_sparsity(sparsity)) / math.log(_part(keep_per_round, "keep_per_round"))
    count = max(1, math.ceil(exact - 1e-9))
    if count > MOST_ROUNDS:
        raise UsageError(
            f"keep_per_round: with {keep_per_round} sparsity {sparsity} takes {count} rounds, more "
            f"than {MOST_ROUNDS}; give a smaller one"
        )
    return count


def geometric(sparsity: float, count: int) -> list[float]:
    """The same part of the weights left is pruned each round.

    Args:
        sparsity: the part of the weights to prune in the end, between 0 and 1.
        count: how many rounds.

    Returns:
        The density after each round.

    Raises:
        UsageError: a number out of its range.

    Example:
        >>> [round(density, 3) for density in geometric(0.75, 2)]
        [0.5, 0.25]
    """
    sparsity, count = _sparsity(sparsity), _count(count)
    return [(1 - sparsity) ** (i / count) for i in range(1, count + 1)]


def linear(sparsity: float, count: int) -> list[float]:
    """The same number of weights is pruned each round.

    Args:
        sparsity: as for `geometric`.
        count: as for `geometric`.

    Example:
        >>> linear(0.75, 3)
        [0.75, 0.5, 0.25]
    """
    sparsity, count = _sparsity(sparsity), _count(count)
    return [1 - sparsity * i / count for i in range(1, count + 1)]


def cubic(sparsity: float, count: int) -> list[float]:
    """Many weights are pruned at first and few at the end: 1 - density = s - s (1 - i/n)^3.

    Args:
        sparsity: as for `geometric`.
        count: as for `geometric`.

    Source:
        AGP, Zhu and Gupta, "To Prune, or Not to Prune" (2017), Eq. 1, from sparsity 0.

    Example:
        >>> cubic(0.75, 3)
        [0.4722..., 0.2777..., 0.25]
    """
    sparsity, count = _sparsity(sparsity), _count(count)
    return [1 - sparsity * (1 - (1 - i / count) ** 3) for i in range(1, count + 1)]


def one_shot(sparsity: float, count: int) -> list[float]:
    """Everything at once, whatever `count` is.

    Args:
        sparsity: as for `geometric`.
        count: as for `geometric`.

    Example:
        >>> one_shot(0.75, 1)
        [0.25]
    """
    _count(count)
    return [1 - _sparsity(sparsity)]


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
) -> list[float]:
    """The density after each round; the last round lands on the target exactly.

    Args:
        sparsity: the part of the weights to prune in the end, between 0 and 1.
        keep_per_round: the part of the weights that a round keeps, between 0 and 1.
        schedule: one of SCHEDULES.
        count: how many rounds; 0 for as many as FairGRAPE's formula gives, and then "geometric" is
            the paper's keep_per_round ** i.

    Raises:
        UsageError: a number out of its range, or an unknown schedule.

    Example:
        >>> densities(0.8, 0.5)
        [0.5, 0.25, 0.2]
        >>> densities(0.8, 0.5, schedule="linear", count=2)
        [0.6, 0.2]
    """
    formula, count = rounds(sparsity, keep_per_round), _count(count, least=0)
    if schedule == "geometric" and count in (0, formula):
        keep, target = as_real(keep_per_round), _target(sparsity)
        return [max(keep**i, target) for i in range(1, formula)] + [target]
    return _scheduled(schedule, sparsity, count or formula)


def check_falling(densities: Sequence[float], *, strictly: bool = True) -> list[float]:
    """Densities that a user lists, as floats.

    Args:
        densities: after each round.
        strictly: whether one may not be as the one before.

    Raises:
        UsageError: they do not fall from round to round, from below 1 to above 0.

    Example:
        >>> check_falling((0.5, 0.1))
        [0.5, 0.1]
    """
    values = [as_real(density) for density in densities]
    pairs = list(zip([1.0, *values], values, strict=False))
    falls = all(after < before or (not strictly and after == before < 1) for before, after in pairs)
    if not falls or not values or values[-1] <= 0:
        rule = "must fall" if strictly else "must not rise,"
        raise UsageError(
            f"densities: {', '.join(map(str, densities))} {rule} from below 1 to above 0"
        )
    return values


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
    if count := _count(rounds, least=0):
        _part(keep_per_round, "keep_per_round")
        return _scheduled(schedule, sparsity, count)
    return densities(sparsity, keep_per_round, schedule=schedule)


def _scheduled(schedule: str, sparsity: float, count: int) -> list[float]:
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule: {schedule!r} is none of {', '.join(SCHEDULES)}")
    target = _target(sparsity)  # rounded, which must not make the last step a rise
    return [*(max(d, target) for d in SCHEDULES[schedule](sparsity, count)[:-1]), target]


def _target(sparsity: float) -> float:
    """The last density."""
    target = round(1.0 - _sparsity(sparsity), DIGITS)
    if not 0 < target < 1:
        raise UsageError(
            f"sparsity: {sparsity} leaves a density of {target:g}, rounded to {DIGITS} digits; "
            "it must be between 0 and 1"
        )
    return target


def _sparsity(value: object) -> float:
    return _part(value, "sparsity")


def _part(value: object, name: str) -> float:
    if not 0 < (number := as_real(value)) < 1:
        raise UsageError(f"{name}: {value} is not between 0 and 1 (both excluded)")
    return number


def _count(value: str | float, least: int = 1) -> int:
    """A number of rounds, a whole float too."""
    whole = isinstance(value, float) and value.is_integer()
    number = whole_number(int(value) if whole else value, "rounds")
    if not least <= number <= MOST_ROUNDS:
        raise UsageError(f"rounds: {value} is not a whole number of {least} to {MOST_ROUNDS}")
    return number
