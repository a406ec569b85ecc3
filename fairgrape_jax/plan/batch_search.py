"""The largest batch that fits, by compiling the training step for several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from fairgrape_jax.plan.compiled import Facts

MOST_TRIALS = 8


@dataclasses.dataclass(frozen=True)
class Trial:
    """One batch that was compiled: images on a device, its bytes there, and whether it fits."""

    images: int
    bytes: int
    fits: bool


@dataclasses.dataclass(frozen=True)
class BatchSearch:
    """What was found.

    Attributes:
        largest: images on a device that fit; 0 if none does.
        next_size: the next larger size, which was compiled and does not fit; 0 if the search ended
            before, or there is none.
        whole_split: whether it is the whole training split.
        trials: all that was compiled, in order.
    """

    largest: int
    next_size: int
    whole_split: bool
    trials: tuple[Trial, ...]


def sizes(most: int) -> list[int]:
    """The batches that are looked at: steps of at most an eighth.

    Args:
        most: the largest.

    Returns:
        The sizes, rising.

    Example:
        >>> sizes(40)[14:]
        [15, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40]
    """
    result: list[int] = []
    step = size = 1
    while size <= most:
        result.append(size)
        if size >= 16 * step:
            step *= 2
        size += step
    return result


def search(
    compile_at: Callable[[int], Facts | None],
    first: Facts,
    images: int,
    memory: float,
    most: int,
) -> BatchSearch:
    """The largest batch of which the step fits.

    Memory grows by about as much for every picture, so each trial is where the line through the
    two nearest ones says; the search ends when a size fits and the next one does not.

    Args:
        compile_at: images on a device -> facts of the step; None where it was not compiled.
        first: the facts at `images`.
        images: on a device.
        memory: bytes of a device.
        most: images on a device that are looked at: the whole training split.
    """
    known = {images: first}
    every = sizes(max(most, images))

    def fits(facts: Facts) -> bool:
        return facts.status == "compiled" and facts.total <= memory

    ended = False
    while len(known) < MOST_TRIALS and not ended:
        below = max((n for n in known if fits(known[n])), default=0)
        above = min((n for n in known if not fits(known[n])), default=0)
        guess = _guess(known, memory)
        if above:
            between = [n for n in every if below < n < above]
            if not between:
                break
            trial = min(between, key=lambda n: abs(n - guess))
        else:
            larger = [n for n in every if n > below]
            if not larger:
                break
            trial = max(larger[0], max((n for n in larger if n <= guess), default=0))
        facts = compile_at(trial)
        if facts is None or facts.status == "not compiled":
            ended = True
        else:
            known[trial] = facts
    below = max((n for n in known if fits(known[n])), default=0)
    above = min((n for n in known if not fits(known[n])), default=0)
    following = next((n for n in every if n > below), 0)
    trials = tuple(Trial(n, facts.total, fits(facts)) for n, facts in known.items())
    return BatchSearch(
        largest=below,
        next_size=above if above and above <= following else 0,
        whole_split=below > 0 and not following,
        trials=trials,
    )


def _guess(known: dict[int, Facts], memory: float) -> float:
    """Where a line through what is known reaches the memory."""
    points = sorted((n, facts.total) for n, facts in known.items() if facts.total)
    if not points:
        return 0.0
    nearest = sorted(points, key=lambda point: abs(point[1] - memory))[:2]
    if len(nearest) == 1:
        (n, total), facts = nearest[0], known[nearest[0][0]]
        slope = max(facts.temporaries / n, 1.0)
        return n + (memory - total) / slope
    (a, low), (b, high) = sorted(nearest)
    slope = max((high - low) / (b - a), 1.0)
    return a + (memory - low) / slope
