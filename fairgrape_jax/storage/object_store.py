"""Paths on object stores (gs://, s3:// and whatever else fsspec knows), with pathlib's methods.

An object store has no renames, links, locks or folders: an object is there whole or not at all, a
folder is the beginning of names, and what must not be done twice is an object that is created only
where there is none. `etils.epath` reaches the same stores by the same fsspec, and cannot create
exclusively; nothing else is missing there.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PosixPath
from typing import IO, Any, NoReturn

from fairgrape_jax.errors import UsageError

# Packages that fsspec needs for a scheme, and the extras of this one that have them.
EXTRAS = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3"}


class ObjectPath(PosixPath):
    """A place on an object store: names as those of a `Path`, operations by fsspec.

    Writing goes by `write_bytes` and `write_text` alone: an object is written whole. What works on
    local files (`open(path)`, `os`, `shutil`, NumPy) refuses one with a UsageError.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """The address, scheme://bucket/name; of a relative path its names."""
        scheme, *names = self.parts or ("",)
        return f"{scheme}//{'/'.join(names)}" if scheme.endswith(":") else super().__str__()

    def __fspath__(self) -> str:
        """Refused: it is no local file."""
        raise UsageError(
            f"{self}: is on an object store, and this needs a local folder; copy it "
            "(gcloud storage cp -r, aws s3 cp --recursive), and name the copy"
        )

    def __bytes__(self) -> bytes:
        """As `__fspath__`."""
        return os.fsencode(self)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object of this name, or one below it.

        Args:
            follow_symlinks: there are no links; it makes no difference.
        """
        return self._placed() and bool(self._ask(lambda fs, name: fs.exists(name)))

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        in_bucket = self._placed() and len(self.parts) > 2
        return in_bucket and bool(self._ask(lambda fs, name: fs.isfile(name)))

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        return self._placed() and bool(self._ask(lambda fs, name: fs.isdir(name)))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of the last write, by the clock of the store; the rest is 0.

        Args:
            follow_symlinks: there are no links; it makes no difference.
        """
        info = self._ask(lambda fs, name: fs.info(name))
        folder = info["type"] == "directory"
        when = 0 if folder else self._ask(lambda fs, name: fs.modified(name)).timestamp()
        mode = stat.S_IFDIR if folder else stat.S_IFREG
        return os.stat_result((mode, 0, 0, 1, 0, 0, info["size"] or 0, when, when, when))

    def open(  # type: ignore[override]  # only to read
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """A file to read from; objects are written by `write_bytes` and `write_text`.

        Args:
            mode: "r", "rb" or "rt".
            buffering: makes no difference.
            encoding: of the text.
            errors: what to do with bytes or letters that it lacks.
            newline: as for `open`.
        """
        if set(mode) - set("rbt"):
            self._refuse(f"open({mode!r})")
        file = self._ask(lambda fs, name: fs.open(name, "rb"))
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)

    def read_bytes(self) -> bytes:
        """The content of the object."""
        return self._ask(lambda fs, name: fs.cat_file(name))

    def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """The content of the object as text.

        Args:
            encoding: of the text.
            errors: what to do with bytes or letters that it lacks.
            newline: as for `open`.
        """
        content = io.BytesIO(self.read_bytes())
        return io.TextIOWrapper(content, encoding, errors, newline).read()

    def write_bytes(self, data: Any) -> int:
        """Put an object in place of what was there: whole, or not at all.

        Args:
            data: the content.
        """
        content = bytes(data)
        self._ask(lambda fs, name: fs.pipe_file(name, content))
        return len(content)

    def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> int:
        """Put text as `write_bytes` does.

        Args:
            data: the content.
            encoding: of the text.
            errors: what to do with bytes or letters that it lacks.
            newline: as for `open`.
        """
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def create(self, data: bytes) -> bool:
        """Put an object only where there is none; of several who try at once one alone does.

        Args:
            data: the content.

        Returns:
            Whether this call did; False where there is an object.
        """
        try:
            self._ask(lambda fs, name: fs.pipe_file(name, data, mode="create"))
        except FileExistsError:
            return False
        return True

    def upload(self, file: Path) -> None:
        """Put a local file in place of what was there: whole, or not at all.

        Args:
            file: the local one.
        """
        self._ask(lambda fs, name: fs.put_file(str(file), name))

    def download(self, file: Path) -> None:
        """Write the object to a local file, whose folder is made.

        Args:
            file: the local one.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._ask(lambda fs, name: fs.get_file(name, str(file)))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Args:
            missing_ok: whether it may be gone already.
        """
        try:
            self._ask(lambda fs, name: fs.rm_file(name))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self) -> None:
        """Remove all objects below this name."""
        for path in self.rglob("*"):
            path.unlink(missing_ok=True)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there with the first object below it.

        Args:
            mode: makes no difference.
            parents: makes no difference.
            exist_ok: makes no difference.
        """

    def rmdir(self) -> None:
        """Do nothing: a folder is gone with the last object below it."""

    def iterdir(self) -> Iterator[ObjectPath]:  # type: ignore[override]
        """What is directly below this name, objects and folders."""
        for name in self._ask(lambda fs, name: fs.ls(name, detail=False)):
            below = self / name.rstrip("/").rpartition("/")[2]
            if below != self:
                yield below

    def glob(self, pattern: str, **options: Any) -> Iterator[ObjectPath]:  # type: ignore[override]
        """The objects (no folders) whose names below this one match, in order.

        Args:
            pattern: parts with *, and ** for any number of parts.
            options: make no difference.
        """
        names = pattern.split("/")
        depth = None if "**" in names else len(names)
        there = self._ask(lambda fs, name: fs.find(name, maxdepth=depth)) if self._placed() else []
        begin = str(self).partition("//")[2].rstrip("/") + "/"
        for name in sorted(there):
            below = name.partition("//")[2] if "//" in name else name
            below = below.lstrip("/").removeprefix(begin)
            if _matches(below.split("/"), names):
                yield self / below

    def rglob(self, pattern: str, **options: Any) -> Iterator[ObjectPath]:  # type: ignore[override]
        """As `glob`, at any depth.

        Args:
            pattern: parts with *, and ** for any number of parts.
            options: make no difference.
        """
        return self.glob(f"**/{pattern}")

    def absolute(self) -> ObjectPath:
        """The path itself."""
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:
        """The path itself: there are no links.

        Args:
            strict: makes no difference.
        """
        return self

    def expanduser(self) -> ObjectPath:
        """The path itself."""
        return self

    def is_absolute(self) -> bool:
        """Whether it begins with a scheme."""
        return bool(self.parts) and self.parts[0].endswith(":")

    def samefile(self, other_path: Any) -> bool:
        """Whether the other one is the same address.

        Args:
            other_path: the other one.
        """
        return str(self) == str(other_path)

    def is_symlink(self) -> bool:
        """False: there are none."""
        return False

    is_mount = is_socket = is_fifo = is_block_device = is_char_device = is_junction = is_symlink

    def _placed(self) -> bool:
        """Whether it names a bucket at least; what is above has nothing in it."""
        return self.is_absolute() and len(self.parts) > 1

    def _ask(self, operation: Callable[[Any, str], Any]) -> Any:
        """Ask the store; OSError with this address for whatever goes wrong there."""
        try:
            return operation(_file_system(self.parts[0].removesuffix(":")), str(self))
        except UsageError:
            raise
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            kind = type(error)
            number = {FileNotFoundError: errno.ENOENT, FileExistsError: errno.EEXIST}.get(kind)
            number = number or errno.EACCES
            raise OSError(number, os.strerror(number), str(self)) from error
        except Exception as error:  # of the store's library, of many kinds
            line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise OSError(errno.EREMOTEIO, line, str(self)) from error

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(f"{self}: {what} is not possible on an object store; use a local folder")


def _refused(name: str) -> Callable[..., NoReturn]:
    def method(self: ObjectPath, *args: Any, **options: Any) -> NoReturn:
        self._refuse(name)

    method.__doc__ = "Refused: object stores have no such thing."
    return method


# Whatever else a Path does to files would reach for a local one of this name.
for _name in (
    *("chmod", "copy", "copy_into", "group", "hardlink_to", "lchmod", "link_to", "lstat", "move"),
    *("move_into", "owner", "readlink", "rename", "replace", "symlink_to", "touch"),
    "walk",
):
    setattr(ObjectPath, _name, _refused(_name))


@functools.cache
def _file_system(scheme: str) -> Any:
    """The file system of a scheme, which remembers no listings: other processes write too."""
    import fsspec

    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        cure = f"pip install 'fairgrape-jax[{extra}]'" if extra else str(error)
        raise UsageError(f"{scheme}://: its package is not installed ({cure})") from error
    except ValueError as error:
        raise UsageError(f"{scheme}://: fsspec knows no such store ({error})") from error


def _matches(names: list[str], patterns: list[str]) -> bool:
    """Whether the parts of a name match those of a pattern, ** any number of them."""
    if not patterns:
        return not names
    first, *rest = patterns
    if first == "**":
        return any(_matches(names[i:], rest) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], first) and _matches(names[1:], rest)
