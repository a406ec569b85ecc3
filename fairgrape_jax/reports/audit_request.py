"""What an audit is asked for: files, columns and options, checked before anything is read."""

from __future__ import annotations

import dataclasses
from typing import Literal

from fairgrape_jax import metrics
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports.audit_sources import Source


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns of a table of predictions.

    Attributes:
        id: empty for "id" where the files have it, and the order of rows where they do not.
        label: the true class.
        prediction: what a model says, where a source names no column of its own.
        groups: several are crossed: every combination that occurs is a group.
        scores: what the names of score columns begin with; the rest is the class. The highest
            score is the prediction, where a table has no column of predictions.
        encoding: of CSV files; empty for what their byte order mark says, or UTF-8.
    """

    id: str = ""
    label: str = "label"
    prediction: str = "prediction"
    groups: tuple[str, ...] = ("group",)
    scores: str = "score_"
    encoding: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """What to audit.

    Attributes:
        dense: the dense models: one, or one for each compressed one. None: the others are alone.
        compressed: sets of models by name, a source per model (say, per seed).
        columns: how the columns of the tables are called.
        positive: the positive class of two; the second one in order if empty.
        missing: what to do with samples that are not in every file.
        min_group: samples of groups with fewer are left out of everything.
        convention: of CEV and SDE.
        replicates: of the bootstrap; by default 1,000, or 200 where there are very many kinds of
            samples.
        by_flags: whether messages name the fields as flags of the command, or as arguments.
    """

    dense: tuple[Source, ...]
    compressed: dict[str, tuple[Source, ...]]
    columns: Columns = dataclasses.field(default_factory=Columns)
    positive: str = ""
    missing: Literal["error", "drop"] = "error"
    min_group: int = 1
    convention: metrics.Convention = "simon-says"
    replicates: int | None = None
    by_flags: bool = True

    def option(self, name: str) -> str:
        """A field as the user knows it: `--min-group` or `min_group=`.

        Args:
            name: of the field.
        """
        return f"--{name.replace('_', '-')}" if self.by_flags else f"{name}="

    @property
    def alone(self) -> bool:
        """Whether there is nothing to compare the models with."""
        return not self.dense


def check(request: Request) -> None:
    """Refuse a request that cannot be met whatever the files hold.

    Args:
        request: which files, and how they are to be read.

    Raises:
        UsageError: numbers of models that do not fit, or counts below 1.
    """
    for name, sources in request.compressed.items():
        if len(request.dense) not in (0, 1, len(sources)):
            raise UsageError(
                f"{request.option('dense')}: {len(request.dense)} models for the {len(sources)} of "
                f"{name}; give one for all, or one for each in the same order"
            )
    if request.min_group < 1 or (request.replicates is not None and request.replicates < 1):
        least, replicates = request.option("min_group"), request.option("replicates")
        raise UsageError(f"{least} and {replicates} must be at least 1")
