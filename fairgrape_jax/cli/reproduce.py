"""`fairgrape reproduce`: a table or figure of a paper beside ours; missing runs are made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.cli.run import shard_of
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say


@dataclasses.dataclass(frozen=True)
class Reproduce(Command):
    """A table or figure of a paper beside ours: paper, ours, interval, verdict.

    What it will cost is said first. Runs that are missing are made, and gone on with where they
    were stopped. A cell without data says which data it needs. A figure is drawn, too.
    """

    table: Annotated[str, Positional, arg(metavar="TABLE")]
    """table2 to table6 or figure3 to figure5 of FairGRAPE, simon_says, simon_says_imbalanced, or
    pw_loss."""
    data: Annotated[Path, arg(metavar="DIR")] = Path("data")
    """Where the data are: utkface, prepared datasets, weights."""
    scale: Literal["small", "paper"] = "small"
    """The paper's size, or one for two cores, whose numbers are others."""
    seeds: int = 3
    """How many."""
    cells: Annotated[
        tuple[str, ...], arg(metavar="NAME...", help_behavior_hint="(default: all)")
    ] = ()
    """The cells to do, of those that are printed."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/reproduce")
    """Where the runs lie, one a cell."""
    shard: Annotated[str, arg(metavar="I/N")] = "0/1"
    """The I-th of N parts (from 0) of the seeds and methods of each cell."""
    only_report: bool = False
    """Print what finished runs tell; make none."""
    plan: bool = False
    """Say what each cell will cost, and make none."""

    def run(self) -> None:
        """Make the runs, and print the table."""
        from fairgrape_jax import reproduction
        from fairgrape_jax.library import runs

        table = reproduction.read_table(self.table)
        names = [cell.name for cell in table.cells]
        for name in self.cells:
            if name not in names:
                raise UsageError(f"reproduce: {name!r} is no cell: choose from {', '.join(names)}")
        if self.seeds < 1:
            raise UsageError(f"reproduce: --seeds {self.seeds} is less than 1")
        shard, scale = shard_of(self.shard), reproduction.SCALES[self.scale]
        say(f"{table.title} ({table.source}). {table.note} Scale: {scale.summary}.")
        chosen = [cell for cell in table.cells if not self.cells or cell.name in self.cells]
        place = self.out / self.scale
        if not self.only_report:
            say("\n" + reproduction.plan_text(chosen, self.data, scale, self.seeds, place))
        if self.plan:
            for cell in chosen:
                if problem := reproduction.missing(cell, self.data):
                    say(problem)
            return
        drawn: dict[str, list[reproduction.Line]] = {}
        for cell in chosen:
            run = place / (cell.run or cell.name)
            if not self.only_report:
                problem = reproduction.missing(cell, self.data)
            else:
                there = (run / "config.json").exists()
                problem = "" if there else f"{cell.name}: no run in {run} yet"
            if problem:
                say(problem)
                continue
            if not self.only_report:
                experiment = reproduction.experiment_of(cell, self.data, scale, self.seeds)
                runs.run(experiment, run, shard=shard)
            say(f"\n{cell.name}, {cell.model}, {100 * cell.sparsity:.4g} % pruned: {run}")
            drawn[cell.name] = reproduction.compare_cell(cell, run)
            say(reproduction.text_of(drawn[cell.name]))
        if table.across and drawn:
            path = place / f"{self.table}.png"
            reproduction.draw(path, table, drawn)
            say(f"\ndrawn: {path}")
