"""Screen recipes of pruning and retraining on handwriting, by the validation split.

Command:  python -m experiments.recipes            (goes on from the cells that are committed)
          python -m experiments.recipes --tables   (prints what came out; runs nothing)
          python -m experiments.recipes --confirm  (six recipes on the test split, fresh seeds)
Expected: the planned hours are printed before anything is run.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from experiments import comparison
from experiments.recipes import batch_norm
from experiments.recipes.recipes import AGAINST, CONFIRMED, FRESH_SEEDS, RECIPES, STUDY
from experiments.study import read_done, run_left
from fairgrape_jax.data import load
from fairgrape_jax.data.sources.writers import Writers
from fairgrape_jax.rounds.predict import SplitName


def main(arguments: list[str] | None = None) -> None:
    """The study from the command line.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--shares", type=float, nargs="+", default=list(STUDY.shares))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--bases", nargs="+", choices=list(RECIPES), default=[STUDY.base])
    parser.add_argument("--tables", action="store_true", help="print what came out, run nothing")
    parser.add_argument("--confirm", action="store_true", help="on the test split")
    options = parser.parse_args(arguments)
    split: SplitName = "test" if options.confirm else "validation"
    if options.confirm:
        options.recipes, options.shares = [*AGAINST, *CONFIRMED], [STUDY.shares[0]]
    seeds = options.seeds or (FRESH_SEEDS if options.confirm else STUDY.seeds)
    planned = list(STUDY.cells(options.recipes, options.shares, seeds, split))
    whole = not options.confirm and options.recipes == list(RECIPES)
    normed = list(batch_norm.STUDY.cells((), options.shares, seeds)) if whole else []
    if not options.tables:
        run_left(planned, options.out)
        run_left(normed, options.out / "batch_norm")  # its dense networks are others
        return
    done = read_done(planned)
    groups = getattr(load(Writers()), split).groups
    needed = options.recipes if options.confirm else [STUDY.base]
    print(comparison.tables(STUDY, done, groups, options.bases, needed))
    if whole:
        print(comparison.tables(batch_norm.STUDY, read_done(normed), groups))
    if options.confirm:
        pairs = list(itertools.product(CONFIRMED, AGAINST))
        share, densities = options.shares[0], ("0.005", "0.002")
        print(comparison.differences(STUDY, done, share, groups, pairs=pairs, densities=densities))


if __name__ == "__main__":
    main()
