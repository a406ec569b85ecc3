"""What each departure of the official FairGRAPE code from its paper does, switched on alone.

Command:  python -m experiments.departures           (goes on from the cells that are committed)
          python -m experiments.departures --tables  (prints what came out; runs nothing)
Expected: the planned minutes are printed before anything is run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.departures import tables
from experiments.departures.cells import cells, planned_seconds, run_cell
from experiments.departures.variants import GROUPINGS, data_of
from fairgrape_jax.data import load


def main(arguments: list[str] | None = None) -> None:
    """The study from the command line.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/departures"))
    parser.add_argument("--tables", action="store_true", help="print what came out, run nothing")
    options = parser.parse_args(arguments)
    done = {cell: content for cell in cells() if (content := cell.read()) is not None}
    if options.tables:
        groups = {grouping: load(data_of(grouping)).test.groups for grouping in GROUPINGS}
        print(tables.tables(done, groups), end="")
        return
    left = [cell for cell in cells() if cell not in done]
    minutes = planned_seconds(len(left)) / 60
    print(
        f"{len(done)} cells are done; the other {len(left)} take about {minutes:.0f} minutes",
        flush=True,
    )
    for cell in left:
        run_cell(cell, options.out)


if __name__ == "__main__":
    main()
