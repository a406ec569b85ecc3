"""Which file and column each audited model comes from, as a command names them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import as_path, is_object_path


@dataclasses.dataclass(frozen=True)
class Source:
    """The predictions of one model.

    Attributes:
        path: the table.
        column: its column there; empty for the default column, or scores per class.
    """

    path: Path
    column: str = ""

    def __str__(self) -> str:
        return f"{self.path} (column {self.column})" if self.column else str(self.path)

    def is_same(self, other: Source) -> bool:
        """Whether both are one column of one file, by whatever path.

        Args:
            other: another source.
        """
        return self.column == other.column and (
            self.path == other.path
            or (not is_object_path(other.path) and self.path.samefile(other.path))
        )

    @property
    def title(self) -> str:
        """The file without its folders, and the column."""
        return str(Source(Path(self.path.name), self.column))


def models(
    *,
    table: Path | None = None,
    dense: Sequence[Path] = (),
    compressed: Sequence[Sequence[str]] = (),
    predictions: Sequence[Sequence[str]] = (),
    dense_columns: Sequence[str] = (),
    compressed_columns: Sequence[str] = (),
) -> tuple[tuple[Source, ...], dict[str, tuple[Source, ...]]]:
    """The dense models, and the sets of compressed ones by name.

    Args:
        table: one file with several columns of predictions; in place of `dense`.
        dense: a file per dense model.
        compressed: for each set its files, the first perhaps as NAME=FILE.
        predictions: the same for models that are compared with nothing.
        dense_columns: the columns of the dense models, if it is not the default one.
        compressed_columns: COLUMN or NAME=COLUMN, a set each; equal names are one set.

    Returns:
        No dense models where there is nothing to compare.

    Raises:
        UsageError: for what does not go together.
    """
    files = [table] if table else list(dense)
    if table and dense:
        raise UsageError("--dense: the table is named already; give one of the two")
    if predictions:
        if files or compressed or dense_columns or compressed_columns:
            raise UsageError(
                "--predictions: is for models alone, without dense and compressed ones"
            )
        return (), _by_name(predictions, "--predictions", "")
    if not files:
        raise UsageError("audit: name a table, or files with --dense, or with --predictions")
    if len(files) > 1 and len(dense_columns) > 1:
        raise UsageError("--dense-column: give several files or several columns, not both")
    originals = tuple(Source(file, column) for file in files for column in dense_columns or [""])
    if compressed:
        if len(compressed_columns) > 1 or (compressed_columns and "=" in compressed_columns[0]):
            raise UsageError("--compressed-column: with --compressed, one column for all its files")
        return originals, _by_name(compressed, "--compressed", *compressed_columns or [""])
    if compressed_columns:
        if len(files) > 1:
            raise UsageError(
                "--compressed-column: --dense has several files; name --compressed too"
            )
        sets: dict[str, tuple[Source, ...]] = {}
        for word in compressed_columns:
            name, equals, column = word.partition("=")
            column = column if equals else word
            sets[name] = (*sets.get(name, ()), Source(files[0], column))
        return originals, sets
    name = originals[0].column or _stem(files[0])
    return (), {name: originals}


def _by_name(
    sets: Sequence[Sequence[str]], flag: str, column: str
) -> dict[str, tuple[Source, ...]]:
    named = named_files(sets, flag)
    return {name: tuple(Source(path, column) for path in paths) for name, paths in named.items()}


def named_files(
    sets: Sequence[Sequence[str]], flag: str = "--compressed"
) -> dict[str, tuple[Path, ...]]:
    """The files of each set of models.

    Args:
        sets: for each set its files, the first perhaps as NAME=FILE.
        flag: of the command line, for messages.

    Returns:
        The files by the name of their set; without NAME= by that of the first file.

    Raises:
        UsageError: two sets of one name.

    Example:
        >>> named_files([["kd=a.csv", "b.csv"], ["c.csv"]])
        {'kd': (PosixPath('a.csv'), PosixPath('b.csv')), 'c': (PosixPath('c.csv'),)}
    """
    named: dict[str, tuple[Path, ...]] = {}
    for first, *rest in sets:
        name, equals, path = first.partition("=")
        if not equals or as_path(first).exists():
            name, path = _stem(as_path(first)), first
        if name in named:
            raise UsageError(f"{flag}: two sets are named {name!r}; give NAME=FILE")
        named[name] = (as_path(path), *map(as_path, rest))
    return named


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or path.name
