"""The table of datasets, and the one function that loads any of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources import arrays, prepared, synthetic, utkface, writers
from fairgrape_jax.data.sources.base import Reading, Source
from fairgrape_jax.data.validate import check
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.progress import Progress
from fairgrape_jax.registry import Table

# The class of a dataset's options, and what loads it: (options, progress, reading) to a Dataset.
Row = tuple[type[Source], Callable[..., Dataset]]


def _check_row(name: str, row: object) -> None:
    """ValueError for what is no row of the table of datasets."""
    if not (isinstance(row, tuple) and len(row) == 2 and callable(row[1])):
        raise ValueError("give (the class of its options, the function that loads it)")
    kind = row[0]
    is_source = isinstance(kind, type) and issubclass(kind, Source)
    if not is_source or not kind.__dataclass_params__.frozen or kind is Source:
        raise ValueError("its options must be a frozen dataclass, a subclass of data.Source")
    if kind.name != name:
        raise ValueError(
            f"its options say name = {kind.name!r}; a ClassVar `name` must be {name!r}"
        )
    if missing := [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING
    ]:
        raise ValueError(f"its option {missing[0]!r} has no default; give it one")


# What an option of a dataset may be.
Option: TypeAlias = str | int | float | bool

# A new dataset is one file with an options class and a load function, and one row here.
SOURCES: Table[Row] = Table(
    "dataset",
    {
        "writers": (writers.Writers, writers.load),
        "utkface": (utkface.UTKFace, utkface.load),
        "synthetic": (synthetic.Synthetic, synthetic.load),
        "prepared": (prepared.Prepared, prepared.load),
        "arrays": (arrays.Arrays, arrays.load),
    },
    _check_row,
)


def source(name: str, **options: Option) -> Source:
    """The options of a dataset.

    Args:
        name: A row of `SOURCES`.
        options: Those that are not as by default.

    Returns:
        All options.

    Raises:
        UsageError: There is no such dataset, or no such option.

    Example:
        >>> source("synthetic", samples=500).seed
        42
    """
    kind, _ = _row(name)
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}; known: {', '.join(known)}")
    construct: Callable[..., Source] = kind
    return construct(**options)


def load(
    source: Source, progress: Progress | None = None, reading: Reading | None = None
) -> Dataset:
    """Read the dataset that `source` describes, and check it.

    Args:
        source: which dataset, and what is taken of it.
        progress: called now and then with (samples read, samples in all).
        reading: how pictures on disk are read; of use to `prepared` alone.

    Raises:
        UsageError: if the options, the files or the samples in them cannot be used.
    """
    _, read = _row(source.name)
    try:
        dataset = read(source, progress, reading or Reading())
    except TrainingError as error:  # a broken picture; nothing is trained yet
        raise UsageError(str(error)) from error
    check(dataset)
    return dataset


def _row(name: str) -> Row:
    if not SOURCES.find(name):
        raise UsageError(f"dataset {name!r} is unknown; known: {', '.join(SOURCES)}")
    return SOURCES[name]
