"""A plan as text: one table of programs, and what the run takes in lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.filesize import decimal

from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.hlo import Collectives
from fairgrape_jax.plan.planning import Plan

HEADER = ("program", "fits", "memory", "GFLOP", "traffic", "collectives", "floor", "compile")


def text(plan: Plan) -> str:
    """All of a plan, for a terminal.

    Args:
        plan: what was planned.

    Returns:
        The lines.
    """
    return "\n".join([*title(plan), "", *programs(plan), "", *run(plan)])


def title(plan: Plan) -> list[str]:
    """What is planned for which devices.

    Args:
        plan: what was planned.

    Returns:
        The lines.
    """
    target, counts, data = plan.target, plan.counts, plan.description
    experiment = plan.experiment
    chip = target.chip
    size = "x".join(map(str, data.shape))
    lines = [
        f"{experiment.model}, {counts['parameters']:,} parameters ({counts['weights']:,} prunable),"
        f" {experiment.precision}, batch {experiment.batch:,}: {data.train:,} training pictures of "
        f"{size}, {data.groups} groups",
        f"{target.name}: {target.chips} x {chip.title}, {target.hosts} "
        f"host{'s' if target.hosts > 1 else ''}, {decimal(int(target.memory))} of memory each"
        + (f" of {decimal(int(chip.memory))}" if target.memory < chip.memory else "")
        + ("" if chip.peak else "; a processor has no data sheet, so no floors and no hours"),
    ]
    return lines + [f"note: {note}" for note in plan.notes]


def programs(plan: Plan) -> list[str]:
    """A row for each program, and below it what the compiler could not do.

    Args:
        plan: what was planned.

    Returns:
        The lines.
    """
    rows = [HEADER, *(row(plan, name) for name in plan.facts)]
    lines = aligned(rows)
    for name, facts in plan.facts.items():
        if facts.message:
            lines.append(f"{name}: {facts.message}")
        if facts.float64:
            lines.append(f"{name}: computes in float64")
        if facts.host_calls:
            lines.append(f"{name}: stops for the host")
    lines.append(
        "On one device, a call. memory: the program's, + what the run holds beside it. GFLOP: of "
        "the lowered"
    )
    lines.append(
        "program, loops once. traffic: what the compiled kernels read and write. floor: the "
        "largest of its"
    )
    lines.append("operations, traffic and collectives over the data sheet's speeds.")
    return lines


def row(plan: Plan, name: str) -> tuple[str, ...]:
    """A program's row.

    Args:
        plan: what was planned.
        name: of the program.

    Returns:
        Its cells.
    """
    facts, floor = plan.facts[name], plan.floor(name)
    compiled = facts.status == "compiled"
    known = facts.flops > 0 or compiled
    return (
        name,
        {True: "yes", False: "NO", None: "?"}[plan.fits(name)],
        memory(facts) if known else "?",
        f"{facts.flops / 1e9:,.2f}" if known else "?",
        decimal(int(facts.traffic)) if compiled else "?",
        collectives(facts.collectives) if compiled else "?",
        f"{1e3 * floor.seconds:,.2f} ms ({floor.bound})" if floor and known else "?",
        f"{facts.compile_seconds:.0f} s" if facts.compile_seconds else "",
    )


def memory(facts: Facts) -> str:
    """The memory of a program: all of it where it is compiled, its arguments else.

    Args:
        facts: of the program.

    Returns:
        The words.
    """
    if facts.status == "compiled":
        return f"{decimal(facts.alone)} + {decimal(facts.resident)}"
    more = f", {decimal(facts.temporaries)} in between" if facts.temporaries else ""
    return f"arguments {decimal(facts.arguments)}{more} + {decimal(facts.resident)}"


def collectives(each: Sequence[Collectives]) -> str:
    """Collectives in words.

    Args:
        each: of a program, by kind.

    Returns:
        The words.

    Example:
        >>> collectives([Collectives("all-reduce", 3, 2048, 1600, 1)])
        '3 all-reduce, 2.0 kB'
    """
    words = [f"{c.count} {c.kind}, {decimal(c.bytes)}" for c in each]
    return "; ".join(words) or "none"


def run(plan: Plan) -> list[str]:
    """What the run takes, a line each.

    Args:
        plan: what was planned.

    Returns:
        The lines.
    """
    lines = []
    if plan.time is not None:
        time = plan.time
        lines.append(
            f"At {time.utilisation:.0%} of the data sheet's speed: {seconds(time.epoch_seconds)} "
            f"an epoch of {time.steps:,} steps, {seconds(time.round_seconds)} a round (scoring "
            f"{seconds(time.scoring_seconds)}), {time.hours:,.2f} hours for {time.rounds:,} rounds"
        )
        if time.unknown:
            lines.append(f"Without {', '.join(time.unknown)}, of which the time is not known.")
    if plan.search is not None:
        lines.append(largest(plan))
    if plan.sharding is not None:
        cut = decimal(plan.sharding.cut)
        lines.append(
            f"Groups: {plan.sharding.advice} ({decimal(plan.sharding.whole)} of sums a device, "
            f"{cut} if sharded)."
        )
    disk = plan.disk
    lines.append(
        f"Disk: {decimal(disk.checkpoint)} a checkpoint, {disk.checkpoints:,} of them kept, "
        f"{decimal(disk.run)} for the run at most, before compression."
    )
    return lines


def largest(plan: Plan) -> str:
    """The largest batch in words.

    Args:
        plan: what was planned.

    Returns:
        A line.
    """
    search, chips = plan.search, plan.target.chips
    assert search is not None
    tried = ", ".join(
        f"{t.images} {decimal(t.bytes) if t.bytes else ''}{'' if t.fits else ' too large'}"
        for t in sorted(search.trials, key=lambda t: t.images)
    )
    if not search.largest:
        return f"Largest batch: not one picture a device fits (tried {tried})."
    end = "" if search.next_size else " at least; the search ended there"
    end = ", the whole training split" if search.whole_split else end
    images = f"{search.largest * chips:,} ({search.largest} a device)"
    return f"Largest batch: {images}{end} (tried {tried})."


def seconds(number: float) -> str:
    """A time, short.

    Args:
        number: seconds.

    Returns:
        The words.

    Example:
        >>> seconds(0.0123), seconds(12.3), seconds(7200)
        ('0.012 s', '12.3 s', '2.00 h')
    """
    if number >= 3600:
        return f"{number / 3600:.2f} h"
    return f"{number:.1f} s" if number >= 1 else f"{number:.3f} s"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell.

    Args:
        rows: cells, as many in each.

    Returns:
        The lines.

    Example:
        >>> aligned([("a", "bb"), ("ccc", "d")])
        ['a    bb', 'ccc  d']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
