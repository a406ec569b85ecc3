"""Tables of a study of methods: accuracy, worst group and rho(D) of each, and FairGRAPE against it.

Command:  python -m experiments.methods_table runs/writers_methods [--levels 0.1 0.05 0.02 0.01]
Prints Markdown. The first tables have means over seeds and 95 % bootstrap intervals over seeds and
test samples, as a report does; the last ones the difference of FairGRAPE to each method on the same
seeds, with the 95 % t-interval of the mean over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from fairgrape_jax.reports import results
from fairgrape_jax.reports.document import markdown_table

COLUMNS = {"accuracy": "accuracy", "worst_group": "worst group", "rho_change": "rho(D)"}


def at_level(models: Sequence[results.Model], name: str, level: float) -> tuple[results.Model, ...]:
    """A method's networks of nearest density, one per seed."""
    of_method = [model for model in models if model.name == name]
    number = min(of_method, key=lambda model: abs(np.log(model.density / level))).record["round"]
    return tuple(model for model in of_method if model.record["round"] == number)


def rows(models: Sequence[results.Model], names: Sequence[str], level: float) -> list[list[str]]:
    """A row for each method: every column with its interval."""
    rows = []
    for name in names:
        cell = results.cell(at_level(models, name, level), replicates=1000)
        values = [
            f"{cell.mean[key][0]:.1f} [{cell.low[key][0]:.1f}, {cell.high[key][0]:.1f}]"
            for key in COLUMNS
        ]
        rows.append([name, *values])
    return rows


def differences(
    models: Sequence[results.Model], names: Sequence[str], level: float
) -> list[list[str]]:
    """FairGRAPE minus each of the other methods, per column, over the seeds that both have."""
    rows = []
    fairgrape = {model.seed: model.record["test"] for model in at_level(models, "fairgrape", level)}
    for name in names:
        others = {model.seed: model.record["test"] for model in at_level(models, name, level)}
        seeds = sorted(fairgrape.keys() & others.keys())
        cells = [name]
        for key in COLUMNS:
            each = np.array([fairgrape[seed][key] - others[seed][key] for seed in seeds])
            reach = stats.t.ppf(0.975, len(each) - 1) * stats.sem(each)
            clear = " *" if abs(each.mean()) > reach else ""
            cells.append(f"{each.mean():+.1f} ± {reach:.1f}{clear}")
        rows.append(cells)
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--levels", nargs="+", type=float, default=[0.1, 0.05, 0.02, 0.01])
    options = parser.parse_args()
    models = [m for run in options.runs for m in results.read(run, label=len(options.runs) > 1)]
    names = list(dict.fromkeys(m.name for m in models if m.record["method"] != "dense"))
    dense = [m for m in models if m.record["method"] == "dense"]
    first = results.cell(tuple(dense), replicates=1000)
    print(
        f"Dense, {len(dense)} seeds: "
        + ", ".join(
            f"{title} {first.mean[key][0]:.1f}"
            for key, title in COLUMNS.items()
            if "rho" not in key
        )
    )
    for level in options.levels:
        print(f"\n### {100 * level:g} % of the weights\n")
        print(markdown_table(["method", *COLUMNS.values()], rows(models, names, level)))
    if "fairgrape" in names:
        others = [name for name in names if name != "fairgrape"]
        for level in options.levels:
            print(f"\n### FairGRAPE minus the other, at {100 * level:g} %\n")
            print(markdown_table(["other", *COLUMNS.values()], differences(models, others, level)))


if __name__ == "__main__":
    main()
