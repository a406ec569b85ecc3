"""The values that papers print, one file of plain values per table and figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import schema
from fairgrape_jax.storage.schema import JsonObject

FOLDER = resources.files("fairgrape_jax.reproduction") / "tables"
TABLES = tuple(
    sorted(
        file.name.removesuffix(".json") for file in FOLDER.iterdir() if file.name.endswith(".json")
    )
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a cell, as the paper prints it; None where it prints nothing and ours is shown."""

    paper: str
    """The method's name in the paper."""
    method: str
    """Ours: a row of METHODS, or dense; "" where there is none."""
    accuracy: float | None = None
    """Overall, percent."""
    groups: tuple[float | None, ...] = ()
    """Of each group, percent."""
    rho_change: float | None = None
    """rho(D), points; None for the network before pruning."""
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    """Other quantities by name, those of `quantities` or some that are not measured here."""


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
    """Their names, in the order of the rows' numbers; none where the groups are the classes."""
    model: str
    sparsity: float
    keep_per_round: float
    rows: tuple[Row, ...]
    training: int = 0
    """Training pictures, about; to plan by."""
    minority: tuple[str, ...] = ()
    """Groups of the minority methods."""
    clusters: int = 0
    """Clusters that are scored in place of the groups; 0 for the groups."""
    methods: tuple[str, ...] = ()
    """What the run prunes by; none for the methods of the rows."""
    run: str = ""
    """The name of the run, where another cell's serves this one too."""
    size: int = 0
    """Pixels of a picture's side, at every scale; 0 for those of the scale."""
    small_rounds: int = 0
    """Rounds at the small scale; 0 for those of the scale."""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Dotted fields of the experiment that are others, at every scale."""
    paper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The same in the paper's size alone."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure of a paper."""

    title: str
    source: str
    note: str
    """What is wrong with the printed table, or what the paper does not say."""
    cells: tuple[Cell, ...]
    across: str = ""
    """What changes from cell to cell, where the table is a figure that is drawn."""


def read_table(name: str) -> Table:
    """The values of a table.

    Args:
        name: one of TABLES.

    Raises:
        UsageError: another name.

    Example:
        >>> read_table("table2").cells[6].rows[-1].rho_change
        0.54
        >>> read_table("figure5").cells[0].run
        'utkface-race-by-gender'
    """
    if name not in TABLES:
        raise UsageError(f"reproduce: {name!r} is no table: choose from {', '.join(TABLES)}")
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    content["cells"] = [whole_cell(cell) for cell in content["cells"]]
    return schema.convert(content, Table, name)


def whole_cell(cell: JsonObject) -> JsonObject:
    """A cell with what it leaves out: that of the cell that it is like.

    Where nothing but the rows differs, the other cell's run serves both.

    Args:
        cell: as a file has it; like: "TABLE/CELL" of another one.
    """
    if "like" not in cell:
        return cell
    table, _, name = cell["like"].partition("/")
    others = json.loads((FOLDER / f"{table}.json").read_text(encoding="utf-8"))["cells"]
    other = whole_cell(next(one for one in others if one["name"] == name))
    differs = {key for key, value in cell.items() if key != "like" and other.get(key) != value}
    whole = {key: value for key, value in other.items() if key != "run"} | cell
    del whole["like"]
    if not differs - {"name", "rows"} and any(row["method"] for row in cell["rows"][-1:]):
        methods = [row["method"] for row in other["rows"]]
        whole["run"] = other.get("run", other["name"])
        whole["methods"] = other.get("methods", [m for m in methods if m not in ("", "dense")])
    return whole
