"""The values that papers print, one file of plain values per table."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import schema

FOLDER = resources.files("fairgrape_jax.reproduction") / "tables"
TABLES = tuple(
    sorted(
        file.name.removesuffix(".json") for file in FOLDER.iterdir() if file.name.endswith(".json")
    )
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a cell, as the paper prints it."""

    paper: str
    """The method's name in the paper."""
    method: str
    """Ours: a row of METHODS, or dense."""
    accuracy: float
    """Overall, percent."""
    groups: tuple[float, ...]
    """Of each group, percent."""
    rho_change: float | None = None
    """rho(D), points; None for the network before pruning."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One experiment of a table: data, task, groups and network, with a row per method."""

    name: str
    source: str
    """A row of the table of datasets."""
    dataset: str
    """The prepared dataset, where the source reads these."""
    folder: str
    """Its place below the folder of the data."""
    needs: str
    """Which data, and how to get them."""
    label: str
    group: str
    groups: tuple[str, ...]
    """Their names, in the order of the rows' numbers."""
    model: str
    sparsity: float
    keep_per_round: float
    rows: tuple[Row, ...]
    minority: tuple[str, ...] = ()
    """Groups of the minority methods."""
    clusters: int = 0
    """Clusters that are scored in place of the groups; 0 for the groups."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper."""

    title: str
    source: str
    note: str
    """What is wrong with the printed table, or what the paper does not say."""
    cells: tuple[Cell, ...]


def read_table(name: str) -> Table:
    """The values of a table.

    Args:
        name: one of TABLES.

    Raises:
        UsageError: another name.

    Example:
        >>> read_table("table2").cells[6].rows[-1].rho_change
        0.54
    """
    if name not in TABLES:
        raise UsageError(f"reproduce: {name!r} is no table: choose from {', '.join(TABLES)}")
    return schema.convert(
        json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")), Table, name
    )
