"""What came out: each departure minus the paper's own, paired over seeds and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.comparison import MEASURES, Compared, against, compare, star
from experiments.departures.cells import Cell
from experiments.departures.variants import DENSITIES, GROUPINGS, MEASURED, PAPER
from experiments.study import unpack
from fairgrape_jax.reports.document import markdown_table


def tables(done: Mapping[Cell, dict[str, Any]], groups: Mapping[str, np.ndarray]) -> str:
    """All results in Markdown.

    Args:
        done: the cells that are done.
        groups: of each grouping the group of every test sample.
    """
    parts = []
    for grouping in GROUPINGS:
        here = {cell.variant: each for cell, each in done.items() if cell.grouping == grouping}
        if PAPER not in here:
            continue
        count = int(groups[grouping].max()) + 1
        parts += [f"### Groups: {grouping} ({count})", other_weights(here)]
        for density in (f"{value:g}" for value in MEASURED):
            compared = gather(here, density, groups[grouping])
            parts += [
                f"{100 * float(density):g} % of the weights, {compared.seeds} seeds:",
                differences(compared),
            ]
    return "\n\n".join(parts) + "\n"


def gather(here: Mapping[str, dict[str, Any]], density: str, groups: np.ndarray) -> Compared:
    """The variants of a grouping at a density.

    Args:
        here: what is left of each variant.
        density: as the cells name it.
        groups: (N,) of the test samples.
    """
    seeds = list(here[PAPER]["seeds"])
    right = np.array(
        [
            [unpack(each["seeds"][s]["pruned"][density], len(groups)) for s in seeds]
            for each in here.values()
        ]
    )
    dense = np.array([unpack(here[PAPER]["seeds"][s]["dense"], len(groups)) for s in seeds])
    table = compare(right, dense[None], groups)
    left = np.full(len(here), float(density))
    return Compared(tuple(here), table[0], table[1:], len(seeds), left)


def differences(compared: Compared) -> str:
    """A row a variant; in brackets its difference from the paper's own.

    Args:
        compared: the variants; a difference of exactly nothing is said to be none.
    """
    value, reach = against(compared, PAPER)
    rows = []
    for place, name in enumerate(compared.names):
        shown = [f"{compared.values[place, k]:.2f}" for k in range(len(MEASURES))]
        if name != PAPER:
            shown = [
                f"{text} ({_difference(value[place, k], reach[place, k])})"
                for k, text in enumerate(shown)
            ]
        rows.append([name, *shown])
    return markdown_table(["variant", *MEASURES], rows)


def other_weights(here: Mapping[str, dict[str, Any]]) -> str:
    """How many of the kept weights are others than the paper's, after the first and last round.

    Args:
        here: what is left of each variant.
    """
    header = [
        "variant",
        *(f"other weights at {100 * d:g} %" for d in (DENSITIES[0], DENSITIES[-1])),
    ]
    rows = []
    for name, each in here.items():
        counts = np.sum([seed["other"] for seed in each["seeds"].values()], axis=0)
        rows.append([name, *(f"{100 * other / kept:.2f} %" for other, kept in counts)])
    return markdown_table(header, rows)


def _difference(value: float, reach: float) -> str:
    if value == reach == 0:
        return "none"
    return f"{value:+.2f} ± {reach:.2f}" + star(value, reach)
