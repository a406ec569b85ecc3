"""What a change to finished networks does: each row with it minus itself, and row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import comparison
from experiments.study import Cell, Study


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a finished network.

    Attributes:
        title: of its tables.
        key: under which a cell has what is right with it.
        name: what is put behind the name of a row.
    """

    title: str
    key: str
    name: str

    def of(self, row: str) -> str:
        """What a row with it is called.

        Args:
            row: its name.
        """
        return f"{row}, {self.name}"


def tables(
    study: Study,
    done: Mapping[Cell, dict[str, Any]],
    groups: np.ndarray,
    change: Change,
    pairs: Sequence[tuple[str, str]] = (),
) -> str:
    """What a change does to each row, and to the differences of rows; "" where no cell has it.

    Args:
        study: of the cells.
        done: the cells; a seed counts where every row has it, with the change and without.
        groups: (N,) of the samples.
        change: which one.
        pairs: rows that are compared when both are changed.
    """
    rows = {**study.rows, **{change.of(row): "after" for row in study.rows}}
    wider = dataclasses.replace(study, rows=rows)
    both: dict[Cell, dict[str, Any]] = {}
    for cell, content in done.items():
        after = {
            density: value | {"right": value[change.key]}
            for density, value in content["pruned"].items()
            if change.key in value
        }
        if after:
            both[dataclasses.replace(cell, study=wider)] = content
            changed = dataclasses.replace(cell, study=wider, row=change.of(cell.row))
            both[changed] = content | {"pruned": after}
    if not both:
        return ""
    densities = [
        density
        for density in (f"{value:g}" for value in study.measured)
        if all(density in content["pruned"] for content in both.values())
    ]
    parts = [f"{change.title}:"]
    families = [
        ([(change.of(row), row) for row in study.rows], comparison.MEASURES[:2]),
        ([(change.of(row), change.of(base)) for row, base in pairs], comparison.MEASURES[:3]),
    ]
    for family, outcomes in families:
        if family:
            parts.append(
                comparison.differences(
                    wider,
                    both,
                    1.0,
                    groups,
                    pairs=family,
                    densities=densities,
                    outcomes=outcomes,
                )
            )
    return "\n\n".join(parts)
