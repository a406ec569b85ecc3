"""`fairgrape audit`: what compression did to whom, from tables of predictions of any framework."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, Positional, UseAppendAction, arg

from fairgrape_jax.cli.command import Command
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say
from fairgrape_jax.reports.audit_request import Request

Sets = UseAppendAction[tuple[tuple[str, ...], ...]]  # a flag that is given again for another set


@dataclasses.dataclass(frozen=True)
class Audit(Command):
    """Compare compressed models with their dense ones, by group and by class; or look at one alone.

    The tables are CSV or Parquet, of any framework (docs/audit.md). A file per model: `--dense A
    --compressed B`. Columns of one table: `TABLE --dense-column a --compressed-column b`. A model
    alone: `--predictions A`.
    """

    table: Annotated[
        DisallowNone[Path | None], Positional, arg(metavar="[TABLE]", help_behavior_hint="")
    ] = None
    """One file with a column of predictions per model, in place of --dense."""
    dense: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Predictions of the dense model, or of one per seed."""
    compressed: Annotated[Sets, arg(metavar="[NAME=]FILE...")] = ()
    """Those of a compressed model, or of one per seed; again for another set."""
    predictions: Annotated[Sets, arg(metavar="[NAME=]FILE...")] = ()
    """Those of a model that is compared with nothing, or of one per seed; again for another set."""
    dense_column: Annotated[tuple[str, ...], arg(metavar="COLUMN...", help_behavior_hint="")] = ()
    """Column of the dense model, if it is not --prediction-column."""
    compressed_column: Annotated[
        tuple[str, ...], arg(metavar="[NAME=]COLUMN...", help_behavior_hint="")
    ] = ()
    """Columns of compressed models in the same table, a set each; those of one NAME are one set."""
    group_column: Annotated[tuple[str, ...], arg(metavar="NAME...")] = ("group",)
    """Column of the group; several are crossed."""
    id_column: Annotated[
        str, arg(metavar="NAME", help_behavior_hint="(default: id; where there is none, the row)")
    ] = ""
    """Column that names a sample; the same in every file."""
    label_column: Annotated[str, arg(metavar="NAME")] = "label"
    """Column of the true class."""
    prediction_column: Annotated[str, arg(metavar="NAME")] = "prediction"
    """Column of what the model says."""
    score_prefix: Annotated[str, arg(metavar="PREFIX")] = "score_"
    """Begin of the columns of scores, which do in place of predictions."""
    encoding: Annotated[
        str, arg(metavar="NAME", help_behavior_hint="(default: what its first bytes say, or utf-8)")
    ] = ""
    """Encoding of CSV files."""
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
    thumbnails: Annotated[
        DisallowNone[Path | None], arg(metavar="PLACE", help_behavior_hint="(default: none)")
    ] = None
    """Folder or archive of the pictures, called as the ids, to show those that changed."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("audit")
    """Folder of the report."""

    def run(self) -> None:
        """Read the tables, write the report, print the table."""
        for flag in ("compressed", "predictions"):
            if not all(getattr(self, flag)):
                raise UsageError(f"--{flag}: name at least one file of predictions")
        if not self.group_column:
            raise UsageError("--group-column: name at least one column")
        from fairgrape_jax.reports import audit, audit_report, audit_sources
        from fairgrape_jax.reports.audit_request import Columns

        dense, compressed = audit_sources.models(
            table=self.table,
            dense=self.dense,
            compressed=self.compressed,
            predictions=self.predictions,
            dense_columns=self.dense_column,
            compressed_columns=self.compressed_column,
        )
        finished = audit.audit(
            Request(
                dense=dense,
                compressed=compressed,
                columns=Columns(
                    id=self.id_column,
                    label=self.label_column,
                    prediction=self.prediction_column,
                    groups=self.group_column,
                    scores=self.score_prefix,
                    encoding=self.encoding,
                ),
                positive=self.positive,
                missing=self.missing,
                min_group=self.min_group,
                convention=self.convention,
                replicates=self.replicates,
            )
        )
        audit_report.write(finished, self.out, self.thumbnails)
        say(audit_report.terminal(finished))
        say(f"report: {self.out / 'report.html'}")
