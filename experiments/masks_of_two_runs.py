"""Two runs side by side, round by round: weights that only one keeps, accuracy, rho(Delta).

Command:  python -m experiments.masks_of_two_runs RUN OTHER
For runs of the same seeds and schedule that differ in how weights are chosen, or in where they ran:
docs/selection.md compares `--scoring.select threshold` and `greedy` by it. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from fairgrape_jax.reports.document import markdown_table
from fairgrape_jax.runner import layout
from fairgrape_jax.storage import checkpoint

HEADER = ["round", "weights %", "weights only in the first", "layers", "accuracy", "rho(D)"]


def rows(run: Path, other: Path) -> Iterator[list[str]]:
    """The table's rows, for each round that both have finished."""
    here, there = ({p.relative_to(d): r for p, r in layout.read_records(d)} for d in (run, other))
    for place in sorted(here.keys() & there.keys()):
        masks, other_masks = (checkpoint.load_masks(d / place / "masks.npz") for d in (run, other))
        alone = {name: int((mask & ~other_masks[name]).sum()) for name, mask in masks.items()}
        kept = sum(int(mask.sum()) for mask in masks.values())
        tests = here[place]["test"], there[place]["test"]
        yield [
            str(place),
            f"{100 * here[place]['density']:.2f}",
            f"{sum(alone.values())} of {kept}",
            str(sum(count > 0 for count in alone.values())),
            ", ".join(f"{test['accuracy']:.1f}" for test in tests),
            ", ".join(f"{test['rho_change']:.2f}" for test in tests),
        ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    print(markdown_table(HEADER, rows(options.run, options.other)))


if __name__ == "__main__":
    main()
