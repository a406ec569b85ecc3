"""The bias audit of predictions in memory: arrays, lists, columns of data frames."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fairgrape_jax import metrics, spelling
from fairgrape_jax.errors import UsageError
from fairgrape_jax.metrics import columns
from fairgrape_jax.reports import audit as audits
from fairgrape_jax.reports import audit_cautions, audit_numbers, audit_report, document, names
from fairgrape_jax.reports.audit_request import Columns
from fairgrape_jax.reports.audit_sources import Source
from fairgrape_jax.reports.blocks import unfolded
from fairgrape_jax.reports.names import Categorical, examples
from fairgrape_jax.storage import as_path


@dataclasses.dataclass(frozen=True)
class Model(Source):
    """The predictions of one model in memory.

    Attributes:
        name: what messages and the report call it.
    """

    path: Path = Path()
    name: str = ""

    def __str__(self) -> str:
        return self.name

    def is_same(self, other: Source) -> bool:
        """Never: two columns are compared by what they say.

        Args:
            other: another model.

        Returns:
            False.
        """
        return False

    @property
    def title(self) -> str:
        """The name."""
        return self.name


@dataclasses.dataclass(frozen=True, repr=False)
class AuditResult:
    """What compression did to whom; printed, it is the table of `fairgrape audit`.

    Attributes:
        audit: the samples, counts and comparisons that all else is made of.
    """

    audit: audits.Audit

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """Every number, as metrics.json holds it; percent and points, None where undefined."""
        return audit_numbers.numbers(self.audit)

    @functools.cached_property
    def tables(self) -> dict[str, list[dict[str, str]]]:
        """The tables of the report by their section, a dict for each row, as a data frame takes."""
        tables: dict[str, list[dict[str, str]]] = {}
        for heading, blocks in self._document.sections:
            parts = [block for block in unfolded(blocks) if isinstance(block, document.Table)]
            for number, block in enumerate(parts):
                title = f"{heading or 'Summary'} ({number + 1})" if number else heading or "Summary"
                tables[title] = [dict(zip(block.header, row, strict=True)) for row in block.rows]
        return tables

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in order."""
        return self.audit.groups.names

    @property
    def findings(self) -> tuple[str, ...]:
        """Which groups fare best and worst, where the samples tell."""
        return tuple(audit_cautions.findings(self.audit))

    @property
    def cautions(self) -> tuple[str, ...]:
        """What was left out, and what to know before reading the numbers."""
        return (*self.audit.notes, *audit_cautions.warnings(self.audit))

    def to_markdown(self) -> str:
        """The report in Markdown, without its charts."""
        return document.markdown(self._document)

    def write(self, directory: str | Path, pictures: str | Path | None = None) -> Path:
        """Write report.html, report.md, metrics.json and pies.csv, as `fairgrape audit` does.

        Args:
            directory: a folder; made where it is not there.
            pictures: a folder or archive of pictures called as the ids, to show those of samples
                that compression changed.

        Returns:
            The path of report.html.

        Raises:
            UsageError: pictures, and no ids by which to know them.
        """
        out = as_path(directory)
        audit_report.write(self.audit, out, None if pictures is None else Path(pictures))
        return out / "report.html"

    @functools.cached_property
    def _document(self) -> document.Document:
        return audit_report.report(self.audit)

    def __str__(self) -> str:
        return audit_report.terminal(self.audit)

    def __repr__(self) -> str:
        sets = ", ".join(self.audit.request.compressed)
        return (
            f"AuditResult({len(self.audit.labels):,} samples, {len(self.groups)} groups, "
            f"{len(self.audit.classes)} classes; {sets}; {len(self.cautions)} cautions)"
        )


def audit(
    labels: columns.Column,
    dense: columns.Column,
    compressed: columns.Column,
    groups: columns.Column,
    *,
    ids: columns.Column = None,
    positive: object = None,
    min_group: int = 1,
    convention: metrics.Convention = "simon-says",
    replicates: int | None = None,
) -> AuditResult:
    """What compression did to whom: the numbers of `fairgrape audit`, from arrays.

    Columns are NumPy's, JAX's, lists, or those of a data frame (pandas, polars, pyarrow), a value
    for each sample: numbers or words.

    Args:
        labels: (N,) classes.
        dense: (N,) predictions of the model before compression; of several, one per seed, a list of
            columns, an array (S, N) or a data frame. None: the compressed models are looked at
            alone.
        compressed: the same of a compressed model; or several by name, a mapping.
        groups: (N,) names or numbers; a negative number or an empty cell (None, NaN, "") is no
            group, and counts overall alone. Several columns, a mapping or a data frame, are
            crossed: every combination that occurs is a group.
        ids: (N,) names of the samples, for pies.csv and pictures; by default their numbers from 1.
        positive: the class whose FPR and FNR these are, where there are two; the second by default.
        min_group: groups with fewer samples are left out of everything.
        convention: of CEV and SDE: "simon-says" or "measure-twice".
        replicates: of the bootstrap; 1,000 by default, 200 where there are very many kinds of
            samples.

    Returns:
        Tables, findings and cautions, and a report to write; see `AuditResult`.

    Raises:
        ValueError: lengths that differ, missing labels or predictions, predictions that are never a
            label, fewer than two groups.

    Example:
        >>> labels, groups = [1, 0, 1, 0] * 20, ["a", "a", "b", "b"] * 20
        >>> pruned = [1, 0, 1, 1] * 20
        >>> result = audit(labels, labels, {"pruned": pruned}, groups, replicates=50)
        >>> result
        AuditResult(80 samples, 2 groups, 2 classes; pruned; 7 cautions)
        >>> result.metrics["sets"]["pruned"]["statistics"]["group_change"]["value"]
        [0.0, -50.0]
    """
    label = _cells("labels", labels)
    count = len(label.codes)
    if (empty := int((label.codes < 0).sum())) > 0:
        raise UsageError(f"labels: {empty:,} samples have none")
    by_name = compressed if isinstance(compressed, Mapping) else {"compressed": compressed}
    if not by_name or len(set(map(str, by_name))) < len(by_name):
        raise UsageError(f"compressed: {list(by_name)}; give each model a name of its own")
    predictions: dict[Source, Categorical] = {}

    def models(name: str, value: columns.Column, role: str = "compressed") -> tuple[Source, ...]:
        cells = _models(name, value, count)
        sources = [Model(column=f"{role} {name}", name=title) for title in cells]
        predictions.update(zip(sources, cells.values(), strict=True))
        return tuple(sources)

    by_column = columns.frame(groups) or {"group": groups}
    request = audits.Request(
        dense=models("dense", dense, "dense") if dense is not None else (),
        compressed={str(name): models(str(name), value) for name, value in by_name.items()},
        columns=Columns(groups=tuple(by_column)),
        positive="" if positive is None else str(positive),
        min_group=min_group,
        convention=convention,
        replicates=replicates,
        by_flags=False,
    )
    audits.check(request)
    if convention not in ("simon-says", "measure-twice"):
        raise UsageError(f"convention: {convention!r} is neither 'simon-says' nor 'measure-twice'")
    crossed = [names.unify([_groups(name, column)])[0] for name, column in by_column.items()]
    sizes = [len(column.codes) for column in crossed]
    if set(sizes) != {count}:
        raise UsageError(f"groups: {sizes} for {count} labels; give as many of each")
    samples = audits.Predicted(
        ids=_ids(ids, count),
        ids_are_rows=ids is None,
        label=label,
        groups=names.cross(crossed, tuple(by_column)),
        predictions=predictions,
        origin="groups",
    )
    return AuditResult(audits.of_samples(request, samples))


def _models(name: str, value: columns.Column, count: int) -> dict[str, Categorical]:
    """The predictions of one model, or of one per seed, by what they are called."""
    several = columns.frame(value)
    if several is None and not _is_column(value, count):
        several = {str(place): column for place, column in enumerate(value)}
    if several is not None and not several:
        raise UsageError(f"{name}: no model is there")
    by_title = {name: value} if several is None else {f"{name}, {k}": v for k, v in several.items()}
    if len(by_title) == 1:
        by_title = {name: next(iter(by_title.values()))}
    cells = {title: _cells(title, column) for title, column in by_title.items()}
    for title, column in cells.items():
        if len(column.codes) != count:
            raise UsageError(
                f"{title}: {len(column.codes):,} predictions for {count:,} labels; give (N,) of "
                "one model, or (S, N) of several, one per seed"
            )
    return cells


def _is_column(value: columns.Column, count: int) -> bool:
    """Whether this is one value for each sample, not several such columns."""
    if isinstance(value, list | tuple):
        return not any(hasattr(x, "__len__") and not isinstance(x, str | bytes) for x in value[:1])
    shape = tuple(getattr(value, "shape", (0,)))
    return len(shape) < 2 or shape == (count, 1)


def _groups(name: str, values: columns.Column) -> Categorical:
    array = columns.column(f"groups, {name}", values)
    distinct, codes = columns.groups(array, f"groups, {name}")
    return _named(codes, distinct)


def _cells(name: str, values: columns.Column) -> Categorical:
    array = columns.column(name, values)
    if not len(array):
        raise UsageError(f"{name}: no samples")
    distinct, codes = columns.encode(name, array, columns.missing(array))
    return _named(codes, distinct)


def _named(codes: np.ndarray, distinct: list[Any]) -> Categorical:
    """Codes of values as those of their words; values that are written alike are one."""
    words = [spelling.clean(str(value)) for value in distinct]
    place = {word: code for code, word in enumerate(dict.fromkeys(words))}
    renamed = np.array([*[place[word] for word in words], -1], np.int32)
    return Categorical(renamed[codes], tuple(place))


def _ids(ids: columns.Column, count: int) -> pa.Array:
    if ids is None:
        return pa.array([str(row) for row in range(1, count + 1)])
    cells = _cells("ids", ids)
    if len(cells.codes) != count or (cells.codes < 0).any():
        raise UsageError(f"ids: {len(cells.codes):,} for {count:,} samples, or empty ones")
    if len(cells.names) < count:
        numbers = np.bincount(cells.codes)
        twice = [cells.names[code] for code in np.flatnonzero(numbers > 1)[:4]]
        raise UsageError(f"ids: some are there more than once ({examples(twice)})")
    return pa.array([cells.names[code] for code in cells.codes.tolist()])
