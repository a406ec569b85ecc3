"""What came out of a study: paired differences of its rows, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.study import Cell, Study, unpack
from fairgrape_jax.metrics.extremes import largest_deviation, standard_error
from fairgrape_jax.reports.document import markdown_table

MEASURES = ("accuracy", "worst group", "one-sided excess gap", "rho(D)")
REPLICATES = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Compared:
    """Rows at one share and density, on the same samples and seeds.

    Attributes:
        names: of the rows, M.
        values: (M, 4), `MEASURES`, means over seeds.
        draws: (R, M, 4), bootstrap replicates.
        seeds: how many.
        left: (M,) the part that is left of what the study counts.
    """

    names: tuple[str, ...]
    values: np.ndarray
    draws: np.ndarray
    seeds: int
    left: np.ndarray


def group_rates(right: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracies of groups in per cent for every draw of the samples.

    Args:
        right: (..., N) bool.
        groups: (N,) int, from 0.
        weights: (R, N), how often a replicate has each sample.

    Returns:
        (R, ..., G).
    """
    count = int(groups.max()) + 1
    correct = np.asarray(right, np.float64).reshape(-1, right.shape[-1])
    members = [np.flatnonzero(groups == g) for g in range(count)]
    sums = np.stack([weights[:, m] @ correct[:, m].T for m in members], axis=-1)  # (R, ..., G)
    sizes = np.stack([weights[:, m].sum(axis=1) for m in members], axis=-1)  # (R, G)
    rates = 100 * sums / sizes[:, None]
    return rates.reshape(len(weights), *right.shape[:-1], count)


def measures(rates: np.ndarray, dense: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Accuracy, worst group, one-sided excess gap and rho of the changes, of each network.

    Args:
        rates: (..., G) accuracies of groups.
        dense: (..., G) those of the dense networks.
        sizes: (G,) samples of each group.

    Returns:
        (..., 4).
    """
    share = sizes / sizes.sum()
    accuracy, before = rates @ share, dense @ share
    change = rates - dense
    excess = -change - (before - accuracy)[..., None]
    return np.stack(
        [accuracy, rates.min(axis=-1), excess.max(axis=-1), change.std(axis=-1, ddof=1)], axis=-1
    )


def compare(right: np.ndarray, dense: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means over seeds of all measures, and their replicates, in one array.

    Each replicate draws samples with replacement within every group and seeds with replacement,
    the same draw for all rows.

    Args:
        right: (M, S, N) bool.
        dense: (M, S, N) bool, of the dense network of each row and seed; (1, S, N) where all rows
            come from the same.
        groups: (N,) int, from 0.
        seed: of the draws.

    Returns:
        (1 + R, M, 4); the first row holds the values.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups)
    weights = np.ones((1 + REPLICATES, len(groups)))
    for g, size in enumerate(sizes):
        weights[1:, groups == g] = rng.multinomial(size, np.full(size, 1 / size), REPLICATES)
    seeds = right.shape[1]
    chosen = rng.integers(0, seeds, (REPLICATES, seeds))
    parts = np.array_split(weights, 40)
    rates, before = (
        np.concatenate([group_rates(each, groups, part) for part in parts])
        for each in (right, dense)
    )
    each = measures(rates, before, sizes)  # (1 + R, M, S, 4)
    drawn = np.take_along_axis(each[1:], chosen[:, None, :, None], axis=2).mean(axis=2)
    return np.concatenate([each[:1].mean(axis=2), drawn])


def gather(
    study: Study,
    done: Mapping[Cell, dict[str, Any]],
    share: float,
    density: str,
    groups: np.ndarray,
    needed: Sequence[str] = (),
) -> Compared | None:
    """The rows that are done with every seed that some of them are all done with.

    Args:
        study: of the cells.
        done: the cells.
        share: of students.
        density: as the cells name it.
        groups: (N,) of the samples.
        needed: rows whose seeds count; none for the study's base.
    """
    by = {(cell.row, cell.seed): each for cell, each in done.items() if cell.share == share}
    needed = needed or (study.base,)
    seeds = [s for s in sorted({s for _, s in by}) if all((name, s) in by for name in needed)]
    names = [name for name in study.rows if seeds and all((name, s) in by for s in seeds)]
    if not names:
        return None
    count = len(groups)
    contents = [[by[name, seed] for seed in seeds] for name in names]
    pruned = [[one["pruned"][density] for one in row] for row in contents]
    right = np.array([[unpack(one["right"], count) for one in row] for row in pruned])
    # A row that was made on another machine has a dense network of its own, by rounding.
    dense = np.array([[unpack(one["dense"], count) for one in row] for row in contents])
    if (dense == dense[:1]).all():
        dense = dense[:1]
    left = np.array([[one.get("cost", one["density"]) for one in row] for row in pruned])
    table = compare(right, dense, groups)
    return Compared(tuple(names), table[0], table[1:], len(seeds), left.mean(axis=1))


def star(value: float, reach: float) -> str:
    """What marks a difference whose interval leaves out zero.

    Args:
        value: the difference.
        reach: how far its interval reaches to either side.
    """
    return " *" if abs(value) > reach else ""


def against(compared: Compared, base: str) -> tuple[np.ndarray, np.ndarray]:
    """Every row minus the base, with intervals that hold for all rows together.

    Args:
        compared: the rows.
        base: the name of one.

    Returns:
        (M, 4) differences, and (M, 4) by how much an interval reaches to either side.
    """
    place = compared.names.index(base)
    value = compared.values - compared.values[place]
    draws = compared.draws - compared.draws[:, place : place + 1]
    reach = np.zeros_like(value)
    others = np.arange(len(value)) != place
    for k in range(len(MEASURES) if others.any() else 0):
        error = standard_error(draws[..., k])
        deviation = largest_deviation(draws[:, others, k], error[others])
        reach[:, k] = np.quantile(deviation, LEVEL) * error
    return value, reach


def tables(
    study: Study,
    done: Mapping[Cell, dict[str, Any]],
    groups: np.ndarray,
    bases: Sequence[str] = (),
    needed: Sequence[str] = (),
) -> str:
    """All results in Markdown.

    Args:
        study: of the cells.
        done: the cells.
        groups: (N,) of the samples.
        bases: what rows are compared with; none for the study's base.
        needed: the rows whose seeds count; none for the study's base.
    """
    parts = []
    for share in sorted({cell.share for cell in done}, reverse=True):
        for density in (f"{value:g}" for value in study.measured):
            compared = gather(study, done, share, density, groups, needed)
            if compared is None:
                continue
            parts.append(
                f"### {100 * float(density):g} % {study.unit}"
                f"{f', students {100 * share:g} %' if share < 1 else ''} "
                f"({compared.seeds} seeds, {len(compared.names)} rows)"
            )
            chosen = [base for base in bases or (study.base,) if base in compared.names]
            parts += [_table(study, compared, base) for base in chosen]
    return "\n\n".join(parts) + "\n"


def differences(
    study: Study,
    done: Mapping[Cell, dict[str, Any]],
    share: float,
    groups: np.ndarray,
    *,
    pairs: Sequence[tuple[str, str]],
    densities: Sequence[str],
    outcomes: Sequence[str] = MEASURES[1:3],
) -> str:
    """One row minus another, for pairs that were decided before, in Markdown.

    The intervals hold for all pairs, outcomes and densities together.

    Args:
        study: of the cells.
        done: the cells.
        share: of students.
        groups: (N,) of the samples.
        pairs: a row, and the one that is taken from it.
        densities: at which, as the cells name them.
        outcomes: of `MEASURES`.
    """
    needed = list(dict.fromkeys(name for pair in pairs for name in pair))
    values, draws, labels, seeds = [], [], [], 0
    for density in densities:
        compared = gather(study, done, share, density, groups, needed)
        if compared is None:
            return "No seed is finished for all rows.\n"
        seeds = compared.seeds
        for outcome in outcomes:
            k = MEASURES.index(outcome)
            for row, base in pairs:
                i, j = compared.names.index(row), compared.names.index(base)
                values.append(compared.values[i, k] - compared.values[j, k])
                draws.append(compared.draws[:, i, k] - compared.draws[:, j, k])
                labels.append((f"{100 * float(density):g} %", outcome, row, base))
    table = np.stack(draws, axis=1)
    error = standard_error(table)
    reach = np.quantile(largest_deviation(table, error), LEVEL) * error
    cells = [
        [*label, f"{value:+.2f} ± {by:.2f}" + star(value, by)]
        for label, value, by in zip(labels, values, reach, strict=True)
    ]
    header = ["weights", "outcome", "row", "minus", f"difference ({seeds} seeds)"]
    header[0] = study.unit.rpartition(" ")[2]
    return markdown_table(header, cells) + "\n"


def _table(study: Study, compared: Compared, base: str) -> str:
    value, reach = against(compared, base)
    rows = []
    for place, name in enumerate(compared.names):
        cells = [f"{compared.values[place, k]:.2f}" for k in range(len(MEASURES))]
        if name != base:
            cells = [
                f"{cell} ({value[place, k]:+.2f} ± {reach[place, k]:.2f})"
                + star(value[place, k], reach[place, k])
                for k, cell in enumerate(cells)
            ]
        left = [f"{100 * compared.left[place]:.2f}"] if study.cost else []
        rows.append([study.rows[name], name, *left, *cells])
    left = ["% left"] if study.cost else []
    return markdown_table(["kind", "row", *left, *MEASURES], rows)
