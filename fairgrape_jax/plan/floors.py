"""The least time that a program can take on a chip, by the chip's data sheet."""

from __future__ import annotations

import dataclasses
import math

from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.targets import Target

# The floor of a step over what it took on an H100 is 0.33 (ResNet-18, 64 pixels), 0.56 and 0.73
# (ResNet-50, 224 pixels, batches of 64 and 256), all in bfloat16; docs/scaling.md.
UTILISATION = 0.5


@dataclasses.dataclass(frozen=True)
class Floor:
    """Seconds that one call of a program takes at least; the largest of the three is its floor.

    Attributes:
        compute: its operations at the chip's peak.
        memory: its traffic at the bandwidth of the memory.
        links: its collectives over the links between chips.
    """

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """The floor, were all three at once."""
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self) -> str:
        """What the program waits for."""
        parts = {"compute": self.compute, "memory": self.memory, "links": self.links}
        return max(parts, key=lambda name: parts[name])


def floor_of(facts: Facts, target: Target, precision: str) -> Floor | None:
    """The floor of a program; None for a processor, which has no data sheet.

    Where it is not compiled its traffic is not known: then every argument is read once.

    Args:
        facts: of the program.
        target: the devices that are planned for.
        precision: of the network, "float32" or "bfloat16".

    Returns:
        The floor; None for a processor, which has no data sheet.
    """
    chip = target.chip
    if precision not in chip.peak:
        return None
    moved = facts.traffic or facts.arguments
    return Floor(
        compute=facts.flops / chip.peak[precision],
        memory=moved / chip.bandwidth,
        links=sum(exchange(each, target) for each in facts.collectives),
    )


def exchange(collectives: Collectives, target: Target) -> float:
    """Seconds at least for the collectives of one kind.

    An all-reduce sends each byte twice around the chips, the others once; over hosts of several
    GPUs every GPU sends its part alone. Messages take no time by themselves.

    Args:
        collectives: of one kind.
        target: the devices that are planned for.

    Returns:
        Seconds.

    Example:
        >>> from fairgrape_jax.plan.targets import parse
        >>> sums = Collectives("all-reduce", 1, 9 * 10**9, 9 * 10**9, 1)
        >>> exchange(sums, parse("h100:1")), exchange(sums, parse("h100:8"))
        (0.0, 0.035)
    """
    chip, count, hosts = target.chip, target.chips, target.hosts
    times = 2 if collectives.kind == "all-reduce" else 1
    inside = count if chip.link == chip.far else min(count, chip.per_host)
    near = times * (inside - 1) / inside * collectives.bytes / chip.link
    if chip.link == chip.far or hosts == 1:
        return near
    return max(near, times * (hosts - 1) / hosts * collectives.bytes / chip.per_host / chip.far)


def finite(number: float) -> float | None:
    """A number as JSON has it.

    Args:
        number: seconds, bytes or a ratio.

    Returns:
        The number; None for infinity and NaN.
    """
    return number if math.isfinite(number) else None
