"""What a test run costs in CPU time, its processes together, and the ceiling it has to stay under.

Wall time says little on a machine that others use too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# Minutes of CPU that the fast suite may take on two cores. Cold: its programs have to be compiled.
CEILINGS = {"cold": 14, "warm": 8}
# What JAX tells of each program: that it looks for it in the cache, and that it was there.
LOOKED, THERE = (
    f"/jax/compilation_cache/{n}" for n in ("compile_requests_use_cache", "cache_hits")
)


def used() -> float:
    """CPU seconds of this process and of all processes that it has started, ended or not."""
    parents, seconds = {}, {}
    for number, (parent, time) in running().items():
        parents[number], seconds[number] = parent, time
    below, total = {os.getpid()}, sum(os.times()[:4])
    while more := {number for number, parent in parents.items() if parent in below} - below:
        total += sum(seconds[number] for number in more)
        below |= more
    return total


def running(folder: Path = Path("/proc")) -> dict[int, tuple[int, float]]:
    """The parent of each process and its seconds, with those of its children that have ended.

    Nothing where there is no /proc: children are then counted when they have ended.
    """
    found = {}
    for path in folder.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        times = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        found[int(path.parent.name)] = int(fields[1]), times
    return found


def state(events: Mapping[str, int]) -> str:
    """Whether a run was cold or warm: cold if more than a tenth of its programs were compiled.

    After a change of the source some always are. events: how often JAX told of each.
    """
    looked, there = events.get(LOOKED, 0), events.get(THERE, 0)
    return "cold" if looked - there > 0.1 * looked else "warm"


def line(seconds: float, state: str) -> tuple[str, bool]:
    """The line at the end of a test run, and whether it was too much; state: cold or warm."""
    minutes, ceiling = seconds / 60, CEILINGS[state]
    over = minutes > ceiling
    found = "OVER the ceiling" if over else "under the ceiling"
    advice = "; --cpu-durations 20 shows the files that take most" if over else ""
    return f"CPU: {minutes:.1f} minutes, {found} of {ceiling} ({state} compile cache){advice}", over


def table(seconds: Mapping[str, float], rows: int) -> list[str]:
    """The files that took most, a line each."""
    most = sorted(seconds.items(), key=lambda one: -one[1])[:rows]
    return [f"{time:8.1f} s  {name}" for name, time in most]
