"""The table of datasets, and the one function that loads any of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources import prepared, synthetic, utkface, writers
from fairgrape_jax.data.sources.base import Reading, Source
from fairgrape_jax.data.validate import check
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.progress import Progress

# What an option of a dataset may be.
Option: TypeAlias = str | int | float | bool

# A new dataset is one file with an options class and a load function, and one row here.
SOURCES: dict[str, tuple[type[Source], Callable[..., Dataset]]] = {
    "writers": (writers.Writers, writers.load),
    "utkface": (utkface.UTKFace, utkface.load),
    "synthetic": (synthetic.Synthetic, synthetic.load),
    "prepared": (prepared.Prepared, prepared.load),
}


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


def _row(name: str) -> tuple[type[Source], Callable[..., Dataset]]:
    if name not in SOURCES:
        raise UsageError(f"dataset {name!r} is unknown; known: {', '.join(SOURCES)}")
    return SOURCES[name]
