"""The bias audit: what compression did to whom, from tables of predictions of any framework."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fairgrape_jax import spelling
from fairgrape_jax.errors import UsageError
from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports import matching, names, prediction_tables
from fairgrape_jax.reports.audit_request import Request, check
from fairgrape_jax.reports.audit_sources import Source
from fairgrape_jax.reports.comparison import Comparison, compare
from fairgrape_jax.reports.differences import Models, compare_sets
from fairgrape_jax.reports.names import Categorical, Groups, examples
from fairgrape_jax.reports.prediction_tables import Table


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What all models say of the same samples.

    Attributes:
        ids: a pyarrow array of strings, (N,).
        ids_are_rows: whether they are the numbers of rows, from 1.
        label: of each sample.
        groups: of each sample; -1 for those of none.
        predictions: of each model.
        origin: where the samples are from, for messages.
    """

    ids: pa.StringArray
    ids_are_rows: bool
    label: Categorical
    groups: Groups
    predictions: dict[Source, Categorical]
    origin: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """The samples that all files share, what the models say of them, and the comparisons.

    Attributes:
        request: what was asked for.
        ids: a pyarrow array of strings, (N,).
        labels: (N,) int, places in `classes`.
        groups: of each sample; -1 for those of none.
        dense: (D, N) int, predictions of the dense models.
        models: (S, N) int of each set.
        classes: every class that is a label or a prediction, the positive one of two last.
        comparisons: of each set.
        compared: the measures of several sets, resampled together; None of one, or of sets of
            different numbers of models.
        notes: what was left out, and what looks wrong.
        ids_are_rows: whether the ids are the numbers of rows, as no file has others.
    """

    request: Request
    ids: pa.StringArray
    labels: np.ndarray
    groups: Groups
    dense: np.ndarray
    models: dict[str, np.ndarray]
    classes: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    compared: Models | None
    notes: tuple[str, ...]
    ids_are_rows: bool

    @property
    def tasks(self) -> list[tuple[str, tuple[str, ...]]]:
        """The one task and its classes."""
        return [(self.request.columns.label, self.classes)]


def audit(request: Request) -> Audit:
    """Read, match, count and compare.

    Args:
        request: which files, and how they are to be read.

    Returns:
        The audit.

    Raises:
        UsageError: whatever cannot be used as it is, with its file and the cure.
    """
    check(request)
    sources = [*request.dense, *[one for each in request.compressed.values() for one in each]]
    tables, notes = _tables(request, sources)
    first = next(iter(tables.values()))
    label, labelled_by = matching.agreed(list(tables.values()), request.columns.label, "label")
    if (unlabelled := int((label.codes < 0).sum())) > 0:
        raise UsageError(f"{labelled_by.path}: {unlabelled:,} samples have no label")
    groups = names.cross(
        [matching.agreed(list(tables.values()), c, "group")[0] for c in request.columns.groups],
        request.columns.groups,
    )
    cells = {s: tables[s.path].predictions[s.column] for s in dict.fromkeys(sources)}
    samples = Predicted(
        first.ids, first.ids_are_rows, label, groups, cells, origin=str(labelled_by.path)
    )
    return of_samples(request, samples, notes)


def of_samples(request: Request, predicted: Predicted, notes: Sequence[str] = ()) -> Audit:
    """Count and compare.

    Args:
        request: what to audit.
        predicted: the samples and what the models say of them.
        notes: on how they were read.

    Raises:
        UsageError: for whatever cannot be used as it is.
    """
    rows, more = _rows(request, predicted.groups, predicted.origin)
    groups, notes = predicted.groups.take(rows).used(), [*notes, *more]
    if len(groups.values) < 2:
        cure = "Name another column with --group-column (the label column makes each class a group)"
        raise UsageError(
            f"column {' x '.join(groups.columns)!r}: {groups.names[0]!r} is the only group; a "
            f"comparison needs two or more{f'. {cure}' if request.by_flags else ''}"
        )
    label, cells = _unified(predicted, rows)
    classes = label.names
    for source, column in cells.items():
        notes += _check_classes(request, source, label, column)
    order = _order(request, classes)
    if len(classes) == 2:
        option = request.option("positive")
        notes.append(f"FPR and FNR are those of class {classes[order[1]]} ({option}).")
    place = np.argsort(order).astype(np.int32)

    def codes(each: Sequence[Source]) -> np.ndarray:
        return np.stack([place[cells[source].codes] for source in each])

    models = {name: codes(each) for name, each in request.compressed.items()}
    dense = codes(request.dense) if request.dense else np.empty((0, len(rows)), np.int32)
    notes += _same(request, dense, models)
    samples = Samples(place[label.codes][:, None], groups.codes, [len(classes)], len(groups.values))
    return Audit(
        request=request,
        ids=predicted.ids.take(pa.array(rows)),
        labels=samples.labels[:, 0],
        groups=groups,
        dense=dense,
        models=models,
        classes=tuple(classes[c] for c in order),
        comparisons=tuple(_compared(request, samples, models, dense)),
        compared=compare_sets(samples, list(models.values()), dense, replicates=request.replicates),
        notes=tuple(dict.fromkeys(notes)),
        ids_are_rows=predicted.ids_are_rows,
    )


def _unified(
    predicted: Predicted, rows: np.ndarray
) -> tuple[Categorical, dict[Source, Categorical]]:
    """The labels and predictions of some samples, in codes of the same classes."""
    cells = {source: column.take(rows) for source, column in predicted.predictions.items()}
    for source, column in cells.items():
        if (empty := int((column.codes < 0).sum())) > 0:
            raise UsageError(f"{source}: {empty:,} samples have no prediction")
    label, *predictions = names.unify([predicted.label.take(rows), *cells.values()])
    return label, dict(zip(cells, predictions, strict=True))


def _compared(
    request: Request, samples: Samples, models: Mapping[str, np.ndarray], dense: np.ndarray
) -> Iterator[Comparison]:
    """Each model against the dense one, or against itself where there is none."""
    for name, each in models.items():
        before = np.broadcast_to(dense, each.shape) if request.dense else each
        yield compare(
            name,
            samples,
            each[..., None],
            before[..., None],
            convention=request.convention,
            replicates=request.replicates,
        )


def _tables(request: Request, sources: Sequence[Source]) -> tuple[dict[Path, Table], list[str]]:
    """Every file once, its samples in the order of the first; and notes."""
    columns: dict[Path, list[str]] = {}
    for source in sources:
        columns.setdefault(source.path, []).append(source.column)
    read = {
        path: prediction_tables.read(path, request.columns, list(dict.fromkeys(names_of_models)))
        for path, names_of_models in columns.items()
    }
    notes = []
    if all(table.ids is None for table in read.values()):
        notes.append(
            f"No file has a column {prediction_tables.ID!r}: a sample is its row, from 1"
            + ("." if len(read) == 1 else "; rows of different files were matched by their order.")
        )
    for table in read.values():
        if table.ties:
            notes.append(
                f"{table.path}: {table.ties:,} samples have two highest scores; the first class in "
                "order counts."
            )
    matched, dropped = matching.align(list(read.values()), drop=request.missing == "drop")
    if dropped:
        notes.append(f"{dropped:,} samples were left out: they are not in every file.")
    return dict(zip(read, matched, strict=True)), notes


def _rows(request: Request, groups: Groups, origin: str) -> tuple[np.ndarray, list[str]]:
    """The samples to count, and notes on those of no group and of small ones."""
    ungrouped = groups.codes < 0
    sizes = np.bincount(groups.codes[~ungrouped], minlength=len(groups.values))
    notes = []
    if ungrouped.any():
        notes.append(
            f"{int(ungrouped.sum()):,} samples are in no group (an empty cell): they count "
            "overall, and for no group."
        )
    for name, size in zip(groups.names, sizes, strict=True):
        if 0 < size < request.min_group:
            notes.append(
                f"Group {name} was left out: {size} samples are fewer than {request.min_group} "
                f"({request.option('min_group')})."
            )
    keep = ungrouped | np.append(sizes >= request.min_group, False)[groups.codes]
    if not (keep & ~ungrouped).any():
        raise UsageError(f"{origin}: no sample is left in a group; {' '.join(notes)}")
    return np.flatnonzero(keep), notes


def _check_classes(
    request: Request, source: Source, label: Categorical, predictions: Categorical
) -> list[str]:
    """A note on predictions that are no label; UsageError if none is one, or they are scores."""
    all_names = label.names
    labels = set(np.unique(label.codes).tolist())
    counts = np.bincount(predictions.codes, minlength=len(all_names))
    predicted = np.flatnonzero(counts).tolist()
    strange = [code for code in predicted if code not in labels]
    if not strange:
        return []
    both = (
        f"labels: {examples([all_names[c] for c in sorted(labels)])}; "
        f"predictions: {examples([all_names[c] for c in predicted])}"
    )
    whole = all(re.fullmatch("-?[0-9]+", all_names[c]) for c in labels)
    if whole and any(re.fullmatch(r"-?[0-9]+\.[0-9]+", all_names[c]) for c in strange):
        cure = ", or a column of scores for each class (--score-prefix)" * request.by_flags
        raise UsageError(
            f"{source}: the predictions look like scores, not classes ({both}); give the class"
            f"{cure}"
        )
    if len(strange) == len(predicted):
        raise UsageError(
            f"{source}: no prediction is ever a label ({both}); name the classes alike"
        )
    share = 100 * counts[strange].sum() / counts.sum()
    return [
        f"{source.title}: {share:.1f} % of its predictions are classes that are no sample's label "
        f"({examples([all_names[c] for c in strange])}): they count as errors."
    ]


def _order(request: Request, classes: Sequence[str]) -> list[int]:
    """The places of the classes, the positive one of two last."""
    positive, order = request.positive, list(range(len(classes)))
    if not positive:
        return order
    known = {name: code for code, name in enumerate(classes)}
    code = known.get(positive, known.get(spelling.renaming([*classes, positive])(positive)))
    if len(classes) != 2 or code is None:
        raise UsageError(
            f"{request.option('positive')}: {positive!r} is not one of two classes "
            f"({examples(classes)})"
        )
    return [1 - code, code]


def _same(request: Request, dense: np.ndarray, models: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on models that are there twice, by their file or by what they say."""
    notes = []
    for name, sources in request.compressed.items():
        for number, source in enumerate(sources):
            others = request.dense[number : number + 1] or request.dense
            if any(source.is_same(other) for other in others):
                notes.append(
                    f"{name}: {source.title} is the dense model's own: nothing can differ."
                )
            elif len(dense) and (dense[number % len(dense)] == models[name][number]).all():
                notes.append(
                    f"{name}: {source.title} says of every sample what the dense model says: "
                    "nothing differs. Are these the right predictions?"
                )
            if any(source.is_same(other) for other in sources[:number]):
                notes.append(
                    f"{name}: {source.title} is there twice: intervals over models are too narrow."
                )
    return notes
