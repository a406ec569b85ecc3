"""Match the file names of a table with the files that are there."""

from __future__ import annotations

import functools
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fairgrape_jax.data.builders.listing import Options, leave_out
from fairgrape_jax.data.images.entries import Entry
from fairgrape_jax.data.images.files import PICTURES
from fairgrape_jax.errors import UsageError


class Matches(NamedTuple):
    """Rows and the pictures that belong to them.

    Attributes:
        names: The picture's name for each name of a row that has one.
        left_out: Notes on those that lack the other.
    """

    names: dict[str, str]
    left_out: tuple[str, ...]


class Names:
    """The files of a place, looked up by what a table calls them.

    A name that is there as it is always wins. Otherwise blanks around it, "./", "\\\\", the path of
    the place in front, the case of the extension and the form of accents (NFC, NFD) make no
    difference, and neither does an extension that is left out, where one file fits.
    """

    def __init__(
        self, files: Mapping[str, Entry], place: Path, others: Mapping[str, str] | None = None
    ):
        """Look names up in a place.

        Args:
            files: The pictures, by name.
            place: Where they lie.
            others: What else lies there, and why it is not read.
        """
        self.files, self.place, self.others = files, place, others or {}

    def find(self, name: str) -> tuple[str, str]:
        """The picture that a cell of a table names.

        Args:
            name: The cell.

        Returns:
            Its name in `files` and "", or "" and why none fits: "there, but ...", or "" where
            nothing like it is there.
        """
        if name in self.files:
            return name, ""
        plain = self._plain(name)
        fitting = self._by_form.get(_form(plain), [])
        if not fitting and not plain.lower().endswith(PICTURES):
            fitting = self._by_stem.get(unicodedata.normalize("NFC", plain), [])
        if len(fitting) == 1:
            return fitting[0], ""
        if fitting:
            return "", f"there, but several times: {', '.join(fitting)}"
        return "", self._why_not(name, plain)

    def _plain(self, name: str) -> str:
        """The path below the place, with "/" and without detours."""
        path = name.strip()
        if "/" not in path:
            path = path.replace("\\", "/")
        path = posixpath.normpath(path)
        if not path.startswith("/"):
            return path
        top = self.place if self.place.is_dir() else self.place.parent
        for folder in (Path(path), Path(path).resolve()):
            for above in (top, top.absolute(), top.resolve()):
                if folder.is_relative_to(above):
                    return folder.relative_to(above).as_posix()
        return path

    def _why_not(self, name: str, plain: str) -> str:
        for path in (plain, *map(str, PurePosixPath(plain).parents)):
            if path in self.others:
                return f"there, but {self.others[path]}"
        normal = unicodedata.normalize("NFC", plain)
        for key in (normal.casefold(), _stem(normal).casefold()):
            if near := self._by_likeness.get(key):
                return f"there, but as {near}"
        if near := self._by_base.get(posixpath.basename(normal)):
            return f"there, but in another folder: {near}"
        if name.strip().startswith("/") and Path(name.strip()).exists():
            return f"there, but not in {self.place}"
        return ""

    @functools.cached_property
    def _by_form(self) -> dict[str, list[str]]:
        return _grouped((_form(name), name) for name in self.files)

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((_stem(_form(name)), name) for name in self.files)

    @functools.cached_property
    def _by_likeness(self) -> dict[str, str]:
        """A file for each name in one case, and without its extension."""
        like: dict[str, str] = {}
        for name in self.files:
            normal = unicodedata.normalize("NFC", name).casefold()
            like.setdefault(normal, name)
            like.setdefault(_stem(normal), name)
        return like

    @functools.cached_property
    def _by_base(self) -> dict[str, str]:
        return {posixpath.basename(unicodedata.normalize("NFC", name)): name for name in self.files}


def match(
    rows: Iterable[tuple[str, str]], names: Names, options: Options, *, unlisted: bool = True
) -> Matches:
    """Give each row its picture.

    Args:
        rows: What each row calls its picture, and the file and row for messages.
        names: The pictures.
        options: What may be left out.
        unlisted: Whether a picture without a row is a problem.

    Returns:
        The matches, and notes on what was left out.

    Raises:
        UsageError: Two rows name one picture, or some rows or pictures have no other and may not be
            left out.
    """
    matches: dict[str, str] = {}
    places: dict[str, str] = {}
    missing = []
    for name, where in rows:
        key, why = names.find(name)
        if key in places:
            raise UsageError(f"{where}: {name} has a row before, {places[key]}; give one of them")
        if key:
            matches[name] = key
            places[key] = where
        else:
            missing.append(f"{name} ({where}{'; ' * bool(why)}{why})")
    left_out = leave_out(missing, "missing", options)
    if unlisted:
        extra = [str(names.files[name]) for name in sorted(names.files.keys() - places.keys())]
        left_out += leave_out(extra, "unlisted", options)
    return Matches(matches, left_out)


def _form(name: str) -> str:
    """One form of accents, and of the case of the extension."""
    stem, extension = posixpath.splitext(unicodedata.normalize("NFC", name))
    return stem + extension.lower()


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    return groups
