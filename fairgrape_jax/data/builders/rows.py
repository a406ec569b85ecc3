"""Make the rows of a dataset from the lines of a table with columns of labels and groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from fairgrape_jax import spelling
from fairgrape_jax.data.builders.listing import (
    NAMED,
    PROBLEMS,
    WHOLE,
    Column,
    Listing,
    Options,
    Row,
    number_names,
)
from fairgrape_jax.data.builders.matching import Names, match
from fairgrape_jax.data.builders.tables import Line
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class TableOptions(Options):
    """What is read of a table."""

    labels: tuple[str, ...] = ("label",)
    """Columns to predict."""
    groups: tuple[str, ...] = ("group",)
    """Columns to be fair over."""
    source: str = ""
    """Column that names what must not be split: the person, the original picture."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of labels and of groups, each once."""
        return tuple(dict.fromkeys((*self.labels, *self.groups)))


class Roles(NamedTuple):
    """Which columns of a table name a picture, and the part of the data that it belongs to.

    Attributes:
        file: The column with the path of the picture.
        split: The column with the split of each row; "" where the table has none.
    """

    file: str
    split: str = ""


def check_columns(options: TableOptions) -> None:
    """Refuse a request without a label or a group.

    Args:
        options: The columns that are asked for.

    Raises:
        UsageError: There is no column of labels, or none of groups.
    """
    if not options.labels or not options.groups:
        raise UsageError("labels and groups: name one column or more of each")


def from_lines(lines: Sequence[Line], names: Names, options: TableOptions, roles: Roles) -> Listing:
    """The rows of a table that have a picture, with classes from the values that are met.

    Numbers are one class where every cell of the column is a number (1 and 1.0); classes are in
    natural order.

    Args:
        lines: The table.
        names: The pictures.
        options: Columns of labels and groups, and what may be left out.
        roles: Columns of names and splits.

    Returns:
        The dataset. A row without a group is in no group, where empty cells are allowed.

    Raises:
        UsageError: It names the file and row of what is wrong, all empty cells at once.
    """
    columns = options.columns
    needed = [roles.file, *options.labels, *filter(None, (options.source, roles.split))]
    left_out = empty_cells(lines, (*needed, *options.groups), options)
    whole = [line for line in lines if all(line.cells[name].strip() for name in needed)]
    cells = {name: [spelling.clean(line.cells[name]) for line in whole] for name in columns}
    spellings = {
        name: spelling.unify_spelling(filter(None, column)) for name, column in cells.items()
    }
    called = [(line.cells[roles.file], line.where) for line in lines]
    matches = match([row for row in called if row[0].strip()], names, options)
    kept = [line for line in whole if line.cells[roles.file] in matches.names]
    values = {
        name: [spellings[name].get(spelling.clean(line.cells[name]), "") for line in kept]
        for name in columns
    }
    classes = {name: spelling.in_order(filter(None, column)) for name, column in values.items()}
    for name in columns:
        gone = set(spellings[name].values()) - set(classes[name])
        if gone and kept:
            shown = ", ".join(spelling.in_order(gone)[:NAMED])
            left_out += (f"no picture is left of {name} {shown}",)
    number_of = {name: number_names(known) | {"": NO_GROUP} for name, known in classes.items()}
    numbers = zip(*([number_of[n][value] for value in values[n]] for n in columns), strict=True)
    rows = []
    for line, row_values in zip(kept, numbers, strict=True):
        name = matches.names[line.cells[roles.file]]
        rows.append(
            Row(
                name=name,
                file=names.files[name],
                where=line.where,
                values=tuple(row_values),
                source=spelling.clean(line.cells[options.source]) if options.source else name,
                split=line.cells[roles.split].strip() if roles.split else WHOLE,
            )
        )
    return Listing(
        columns=tuple(Column(c, classes[c], group=c in options.groups) for c in columns),
        rows=tuple(rows),
        labels=options.labels,
        groups=options.groups,
        left_out=(*left_out, *matches.left_out),
    )


def empty_cells(lines: Sequence[Line], names: Sequence[str], options: Options) -> tuple[str, ...]:
    """Look for empty cells.

    Args:
        lines: The table.
        names: Columns that should have none.
        options: Whether there may be some.

    Returns:
        Nothing without one, else a note that counts and names them.

    Raises:
        UsageError: There are some, and they are not allowed; it names all.
    """
    cells = [
        f"{line.where} ({name})"
        for line in lines
        for name in dict.fromkeys(names)
        if not line.cells[name].strip()
    ]
    if not cells:
        return ()
    shown = "; ".join(cells[:NAMED]) + ("; ..." if len(cells) > NAMED else "")
    text = f"{len(cells):,} {PROBLEMS['empty']}: {shown}"
    if "empty" in options.allowed:
        return (f"{text} (rows without a label are left out, those without a group are in none)",)
    raise UsageError(
        f"{text}. --allow empty leaves out rows without a label, and keeps those without a group "
        "in no group"
    )
