"""Tables with rows of this package, of a user's own files and of other packages, and who has which.

A row from outside is added by `Table.register`, in any Python file that is run or imported before
the row is used, or by an entry point of an installed package, which is loaded when its name is
used. Each is known by its origin, so that a run can record whose code it was made with.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import importlib.metadata
import re
import sys
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TypeVar

from fairgrape_jax.errors import UsageError

PACKAGE = __name__.partition(".")[0]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # parts of files' names are made of them

RowT = TypeVar("RowT")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a row from outside was registered."""

    file: str = ""
    """The name of the file, without its folder; "" for an installed package."""
    sha256: str = ""
    """That of the file; "" where there is none: a row that was typed into a session."""
    distribution: str = ""
    """The installed package whose entry point it is."""
    version: str = ""
    """Of the package."""

    def __str__(self) -> str:
        if self.distribution:
            return f"{self.distribution} {self.version}"
        return f"{self.file} (sha256 {self.sha256[:12]})" if self.sha256 else self.file


# The entry point that is being loaded: what its module registers is its distribution's.
_loading: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("loading", default=None)


class Table(UserDict[str, RowT]):
    """Rows by name.

    A row that is assigned is recorded as one that is registered, but nothing of it is checked.

    Attributes:
        kind: what a row is: "method", "model", "dataset" or "metric".
        origins: where the rows that are not of this package were registered, by name.
    """

    def __init__(
        self, kind: str, rows: Mapping[str, RowT], check: Callable[[str, RowT], None] | None = None
    ):
        """A table.

        Args:
            kind: what a row is; "fairgrape_jax.KINDs" is its group of entry points.
            rows: those of this package.
            check: (name, row) raises ValueError for a row from outside that is none.
        """
        self._rows, self._check = dict(rows), check
        self.kind = kind
        self.origins: dict[str, Origin] = {}
        self._places: dict[str, str] = {}  # the whole path of the file, or the package
        super().__init__()
        self.data.update(rows)

    @property
    def built_in(self) -> tuple[str, ...]:
        """The names of the rows of this package."""
        return tuple(self._rows)

    def __setitem__(self, name: str, row: RowT) -> None:
        if self._rows.get(name) is row:  # as it was
            self.data[name] = row
            self.origins.pop(name, None)
        else:
            self._put(name, row, *_origin_of_caller())

    def __delitem__(self, name: str) -> None:
        del self.data[name]
        self.origins.pop(name, None)
        self._places.pop(name, None)

    def register(self, name: str, row: RowT) -> None:
        """Add a row; the file that calls this is its origin.

        The same file, or session, may do so again: its new row takes the place of its old one.

        Args:
            name: what it is called, letters, digits, - and _.
            row: as a row of this package.

        Raises:
            UsageError: for a name that is taken or cannot be stored, or what is no row.
        """
        origin, place = _origin_of_caller()
        self._add(name, row, origin, place)

    def unregister(self, name: str) -> None:
        """Take out a row from outside.

        Args:
            name: of the row.

        Raises:
            UsageError: if there is none, or it is of this package.
        """
        if name not in self.origins or name in self._rows:
            raise UsageError(f"{self.kind} {name!r}: was not registered from outside")
        del self[name]

    def find(self, name: str) -> bool:
        """Whether there is such a row; that of an installed package is loaded now.

        Args:
            name: of the row.

        Returns:
            True where it can be had.

        Raises:
            UsageError: if two have the name, or the package's row cannot be loaded.
        """
        others = self._entry_points(name)
        taken = name in self and self.origins.get(name, Origin()).distribution == ""
        if len(others) > 1 or (others and taken):
            whose = [_distribution(other).distribution for other in others]
            if taken:
                whose.append(str(self.origins.get(name, "this package")))
            raise UsageError(
                f"{self.kind} {name!r} is of several: {' and '.join(whose)}; rename yours, or "
                f"uninstall {whose[0]}"
            )
        if others and name not in self:
            self._load(others[0])
        return name in self

    def load_all(self) -> dict[str, str]:
        """Load the rows of all installed packages; what is wrong with each that cannot be."""
        wrong = {}
        for point in self._entry_points():
            try:
                self.find(point.name)
            except UsageError as error:
                wrong[point.name] = str(error)
        return wrong

    def _add(self, name: str, row: RowT, origin: Origin, place: str) -> None:
        by = f"{self.kind} {name!r} of {origin.file or origin.distribution}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(
                f"{by}: no name for a {self.kind}; give a letter, then letters, digits, - and _"
            )
        if name not in self and (like := [k for k in self if k.lower() == name.lower()]):
            raise UsageError(f"{by}: there is {like[0]!r} already; give it another name")
        if name in self and (name in self._rows or self._places.get(name) != place):
            owner = self.origins.get(name, "this package")
            raise UsageError(f"{by}: the name is taken by {owner}; give it another name")
        if self._check is not None:
            try:
                self._check(name, row)
            except ValueError as error:
                raise UsageError(f"{by}: {error}") from error
        self._put(name, row, origin, place)

    def _put(self, name: str, row: RowT, origin: Origin, place: str) -> None:
        self.data[name], self.origins[name], self._places[name] = row, origin, place

    def _entry_points(self, name: str = "") -> list[importlib.metadata.EntryPoint]:
        """Those of this table in the installed packages; of one name, or all."""
        points = _installed(f"{PACKAGE}.{self.kind}s", tuple(sys.path))
        return [point for point in points if name in ("", point.name)]

    def _load(self, point: importlib.metadata.EntryPoint) -> None:
        origin = _distribution(point)
        with _loads(origin):
            try:
                row = point.load()
            except Exception as error:
                raise UsageError(
                    f"{self.kind} {point.name!r} of {origin}: cannot be loaded "
                    f"({type(error).__name__}: {error}); repair or uninstall {origin.distribution}"
                ) from error
            self._add(point.name, row, origin, origin.distribution)


@contextlib.contextmanager
def _loads(origin: Origin) -> Iterator[None]:
    token = _loading.set(origin)
    try:
        yield
    finally:
        _loading.reset(token)


@functools.cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """The entry points of a group on a path of modules, each once."""
    del path  # of the module search: what is installed depends on it
    return tuple(dict.fromkeys(importlib.metadata.entry_points(group=group)))


def _distribution(point: importlib.metadata.EntryPoint) -> Origin:
    dist = point.dist
    return Origin(
        distribution=dist.name if dist else point.module, version=dist.version if dist else ""
    )


def _origin_of_caller() -> tuple[Origin, str]:
    """Of the code outside this package that registers a row; and its place, to tell files apart."""
    if loading := _loading.get():
        return loading, loading.distribution
    frame = sys._getframe(1)
    while frame.f_back and _top_module(frame) in (PACKAGE, "collections", "_collections_abc"):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    try:
        return Origin(path.name, hashlib.sha256(path.read_bytes()).hexdigest()), str(path.resolve())
    except OSError:
        return Origin("a session"), ""


def _top_module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
