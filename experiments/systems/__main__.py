"""Compare related systems on handwriting: five seeds, test split, equal epochs.

Command:  python -m experiments.systems            (goes on from the cells that are committed)
          python -m experiments.systems --tables   (prints what came out; runs nothing)
          python -m experiments.systems --time     (CPU seconds of an epoch of each row)
Expected: the planned hours are printed before anything is run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments import comparison
from experiments.study import read_done, run_left
from experiments.systems.rows import PAIRS, STRUCTURED_PAIRS, STRUCTURES, STUDY
from experiments.systems.timing import time_rows
from fairgrape_jax.data import load
from fairgrape_jax.data.sources.writers import Writers


def main(arguments: list[str] | None = None) -> None:
    """The study from the command line.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/systems"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(STUDY.seeds))
    parser.add_argument("--bases", nargs="+", choices=list(STUDY.rows), default=[STUDY.base])
    parser.add_argument("--tables", action="store_true", help="print what came out, run nothing")
    parser.add_argument("--time", action="store_true", help="what an epoch costs, measured now")
    options = parser.parse_args(arguments)
    planned = {
        study: list(study.cells(seeds=options.seeds, split="test")) for study in (STUDY, STRUCTURES)
    }
    if options.time:
        print(time_rows(options.out))
    elif options.tables:
        groups = load(Writers()).test.groups
        for (study, cells), pairs in zip(planned.items(), (PAIRS, STRUCTURED_PAIRS), strict=True):
            done, densities = read_done(cells), [f"{value:g}" for value in study.measured]
            print(comparison.tables(study, done, groups, options.bases))
            share, outcomes = study.shares[0], comparison.MEASURES[:2]
            print(
                comparison.differences(
                    study, done, share, groups, pairs=pairs, densities=densities, outcomes=outcomes
                )
            )
    else:
        run_left([cell for cells in planned.values() for cell in cells], options.out)


if __name__ == "__main__":
    main()
