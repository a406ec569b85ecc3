"""`fairgrape audit`: what compression did to whom, from tables of predictions of any framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, UseAppendAction, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say


@dataclasses.dataclass(frozen=True)
class Audit(Command):
    """Compare compressed models with their dense ones, by group and by class.

    The tables are CSV or Parquet, of any framework (docs/audit.md).
    """

    dense: Annotated[tuple[Path, ...], arg(metavar="FILE...")]
    """Predictions of the dense model, or of one per seed."""
    compressed: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="[NAME=]FILE...")
    ]
    """Those of a compressed model, or of one per seed; again for another set."""
    group_column: Annotated[tuple[str, ...], arg(metavar="NAME...")] = ("group",)
    """Column of the group; several are crossed."""
    id_column: Annotated[str, arg(metavar="NAME")] = "id"
    """Column that names a sample; the same in every file."""
    label_column: Annotated[str, arg(metavar="NAME")] = "label"
    """Column of the true class."""
    prediction_column: Annotated[str, arg(metavar="NAME")] = "prediction"
    """Column of what the model says."""
    score_prefix: Annotated[str, arg(metavar="PREFIX")] = "score_"
    """Begin of the columns of scores, which do in place of predictions."""
    positive: Annotated[
        str, arg(metavar="CLASS", help_behavior_hint="(default: the second in order)")
    ] = ""
    """The positive class of two."""
    missing: Literal["error", "drop"] = "error"
    """What to do with ids that are not in all files."""
    min_group: Annotated[int, arg(metavar="N")] = 1
    """Leave out groups of fewer samples."""
    convention: Literal["simon-says", "measure-twice"] = "simon-says"
    """Of CEV and SDE: whose definition."""
    replicates: Annotated[
        DisallowNone[int | None],
        arg(metavar="N", help_behavior_hint="(default: 1000, or 200 for very many classes)"),
    ] = None
    """Samples of the bootstrap."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("audit")
    """Folder of the report."""

    def run(self) -> None:
        """Read the tables, write the report, print the table."""
        for flag, files in (("dense", self.dense), ("compressed", self.compressed)):
            if not files or not all(files if flag == "compressed" else [files]):
                raise UsageError(f"--{flag}: name at least one file of predictions")
        if not self.group_column:
            raise UsageError("--group-column: name at least one column")
        from fairgrape_jax.reports import audit
        from fairgrape_jax.reports.prediction_tables import Columns

        found = audit.audit(
            audit.Request(
                dense=self.dense,
                compressed=named_files(self.compressed),
                columns=Columns(
                    id=self.id_column,
                    label=self.label_column,
                    prediction=self.prediction_column,
                    groups=self.group_column,
                    scores=self.score_prefix,
                ),
                positive=self.positive,
                missing=self.missing,
                min_group=self.min_group,
                convention=self.convention,
                replicates=self.replicates,
            )
        )
        audit.write(found, self.out)
        say(audit.terminal(found))
        say(f"report: {self.out / 'report.html'}")


def named_files(sets: Sequence[Sequence[str]]) -> dict[str, tuple[Path, ...]]:
    """The files of each --compressed by name.

    Raises:
        UsageError: if a name is there twice.

    Example:
        >>> named_files([["kd=a.csv", "b.csv"], ["c.csv"]])
        {'kd': (PosixPath('a.csv'), PosixPath('b.csv')), 'c': (PosixPath('c.csv'),)}
    """
    named: dict[str, tuple[Path, ...]] = {}
    for first, *rest in sets:
        name, equals, path = first.partition("=")
        if not equals or Path(first).exists():
            name, path = Path(first).name.split(".")[0], first
        if name in named:
            raise UsageError(f"--compressed: two sets are named {name!r}; give NAME=FILE")
        named[name] = (Path(path), *map(Path, rest))
    return named
