"""What came out: paired differences of recipes over seeds and samples, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.recipes.cells import Cell, unpack
from experiments.recipes.recipes import BASE, MEASURED, RECIPES
from fairgrape_jax.metrics.extremes import largest_deviation, standard_error
from fairgrape_jax.reports.document import markdown_table

MEASURES = ("accuracy", "worst group", "one-sided excess gap", "rho(D)")
REPLICATES = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Compared:
    """Recipes at one share and density, on the same samples and seeds.

    Attributes:
        names: of the recipes, M.
        values: (M, 4), `MEASURES`, means over seeds.
        draws: (R, M, 4), bootstrap replicates.
        seeds: how many.
    """

    names: tuple[str, ...]
    values: np.ndarray
    draws: np.ndarray
    seeds: int = 0


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
    inside = np.stack([weights * (groups == g) for g in range(count)], axis=-1)  # (R, N, G)
    sums = np.einsum("...n,rng->r...g", np.asarray(right, np.float64), inside)
    sizes = inside.sum(axis=1).reshape(len(weights), *[1] * (right.ndim - 1), count)
    return 100 * sums / sizes


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
    the same draw for all recipes.

    Args:
        right: (M, S, N) bool.
        dense: (S, N) bool.
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
    each = measures(rates, before[:, None], sizes)  # (1 + R, M, S, 4)
    drawn = np.take_along_axis(each[1:], chosen[:, None, :, None], axis=2).mean(axis=2)
    return np.concatenate([each[:1].mean(axis=2), drawn])


def gather(
    done: Mapping[Cell, dict[str, Any]],
    share: float,
    density: str,
    groups: np.ndarray,
    needed: Sequence[str] = (BASE,),
) -> Compared | None:
    """The recipes that are done with every seed that some of them are all done with.

    Args:
        done: the cells.
        share: of students.
        density: as the cells name it.
        groups: (N,) of the samples.
        needed: those whose seeds count.
    """
    by = {(cell.recipe, cell.seed): each for cell, each in done.items() if cell.share == share}
    seeds = [s for s in sorted({s for _, s in by}) if all((name, s) in by for name in needed)]
    names = [name for name in RECIPES if seeds and all((name, s) in by for s in seeds)]
    if not names:
        return None
    count = len(groups)
    contents = [[by[name, seed] for seed in seeds] for name in names]
    right = np.array(
        [[unpack(one["pruned"][density]["right"], count) for one in row] for row in contents]
    )
    dense = np.array([unpack(one["dense"], count) for one in contents[0]])
    table = compare(right, dense, groups)
    return Compared(tuple(names), table[0], table[1:], len(seeds))


def against(compared: Compared, base: str) -> tuple[np.ndarray, np.ndarray]:
    """Every recipe minus the base, with intervals that hold for all recipes together.

    Args:
        compared: the recipes.
        base: the name of one.

    Returns:
        (M, 4) differences, and (M, 4) by how much an interval reaches to either side.
    """
    place = compared.names.index(base)
    value = compared.values - compared.values[place]
    draws = compared.draws - compared.draws[:, place : place + 1]
    reach = np.zeros_like(value)
    for k in range(len(MEASURES)):
        error = standard_error(draws[..., k])
        others = np.arange(len(error)) != place
        deviation = largest_deviation(draws[:, others, k], error[others])
        reach[:, k] = np.quantile(deviation, LEVEL) * error
    return value, reach


def tables(
    done: Mapping[Cell, dict[str, Any]],
    groups: np.ndarray,
    bases: Sequence[str] = (BASE,),
    needed: Sequence[str] = (BASE,),
) -> str:
    """All results in Markdown.

    Args:
        done: the cells.
        groups: (N,) of the samples.
        bases: what recipes are compared with.
        needed: the recipes whose seeds count.
    """
    parts = []
    for share in sorted({cell.share for cell in done}, reverse=True):
        for density in (f"{value:g}" for value in MEASURED):
            compared = gather(done, share, density, groups, needed)
            if compared is None:
                continue
            parts.append(
                f"### {100 * float(density):g} % of the weights, students {100 * share:g} % "
                f"({compared.seeds} seeds, {len(compared.names)} recipes)"
            )
            parts += [_table(compared, base) for base in bases if base in compared.names]
    return "\n\n".join(parts) + "\n"


def confirmation(
    done: Mapping[Cell, dict[str, Any]],
    share: float,
    groups: np.ndarray,
    *,
    recipes: Sequence[str],
    bases: Sequence[str],
    densities: Sequence[str],
    outcomes: Sequence[str] = MEASURES[1:3],
) -> str:
    """Every recipe minus every base, with intervals that hold for all comparisons together.

    Args:
        done: the cells.
        share: of students.
        groups: (N,) of the samples.
        recipes: that were to be confirmed.
        bases: what they are compared with.
        densities: at which, as the cells name them.
        outcomes: of `MEASURES`.
    """
    values, draws, labels, seeds = [], [], [], 0
    for density in densities:
        compared = gather(done, share, density, groups, [*bases, *recipes])
        if compared is None:
            return "No seed is finished for all recipes.\n"
        seeds = compared.seeds
        for outcome in outcomes:
            k = MEASURES.index(outcome)
            for recipe in recipes:
                for base in bases:
                    i, j = compared.names.index(recipe), compared.names.index(base)
                    values.append(compared.values[i, k] - compared.values[j, k])
                    draws.append(compared.draws[:, i, k] - compared.draws[:, j, k])
                    labels.append((f"{100 * float(density):g} %", outcome, recipe, base))
    table = np.stack(draws, axis=1)
    error = standard_error(table)
    reach = np.quantile(largest_deviation(table, error), LEVEL) * error
    rows = [
        [*label, f"{value:+.2f} ± {by:.2f}" + (" *" if abs(value) > by else "")]
        for label, value, by in zip(labels, values, reach, strict=True)
    ]
    header = ["weights", "outcome", "recipe", "minus", f"difference ({seeds} seeds)"]
    return markdown_table(header, rows) + "\n"


def _table(compared: Compared, base: str) -> str:
    value, reach = against(compared, base)
    rows = []
    for place, name in enumerate(compared.names):
        cells = [f"{compared.values[place, k]:.2f}" for k in range(len(MEASURES))]
        if name != base:
            cells = [
                f"{cell} ({value[place, k]:+.2f} ± {reach[place, k]:.2f})"
                + (" *" if abs(value[place, k]) > reach[place, k] else "")
                for k, cell in enumerate(cells)
            ]
        rows.append([RECIPES[name].part, name, *cells])
    return markdown_table(["part", "recipe", *MEASURES], rows)
