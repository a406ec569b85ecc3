"""`fairgrape measure`: what networks cost on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say


@dataclasses.dataclass(frozen=True)
class Measure(Command):
    """Parameters, bytes, operations, time of a call and memory of networks, on this machine."""

    stages: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN[/STAGE]...")]
    """Runs, or stages of them, like RUN/seed_0/dense."""
    repeats: Annotated[int, arg(metavar="N")] = 20
    """Calls that are timed, of one picture and of 64."""
    shrink: Annotated[bool, FlagCreatePairsOff] = False
    """Measure each stage also without the channels that are pruned as a whole."""
    save: Annotated[bool, FlagCreatePairsOff] = False
    """Store size, operations and time with each stage, for the report of its run."""

    def run(self) -> None:
        """Measure, and print a table."""
        if not self.stages:
            raise UsageError("measure: name a run, or a stage of one")
        from fairgrape_jax.exporters import measure

        costs = [measure.measure(stage, self.repeats) for stage in self.stages]
        small = [
            measure.measure(stage, self.repeats, shrink=True)
            for stage in self.stages
            if self.shrink
        ]
        say(measure.table([*costs, *small]))
        if self.save:
            for stage, cost in zip(self.stages, costs, strict=True):
                say(f"saved: {measure.save(stage, cost)}")
