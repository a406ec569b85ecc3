"""flat://: an object store of a folder's files, for tests; no folders, no renames, no links.

An object is a file under its quoted name, so there is nothing that a folder could be made of.
Import this file in every process that is to know it; FAIRGRAPE_FLAT_STORE names the folder.
"""

import contextlib
import datetime
import io
import os
import tempfile
import urllib.parse
from pathlib import Path

import fsspec

from fairgrape_jax.storage import as_path

OPERATIONS = []  # what was asked for in this process: (name, object)


class FlatStore(fsspec.AbstractFileSystem):
    """Whole objects are put, created where there is none, read, listed and removed."""

    protocol = "flat"
    cachable = False

    @property
    def folder(self):
        return Path(os.environ["FAIRGRAPE_FLAT_STORE"])

    def _file(self, path):
        return self.folder / urllib.parse.quote(self._strip_protocol(path).strip("/"), safe="")

    def _names(self):
        names = [n for n in os.listdir(self.folder) if not n.startswith(".")]
        return sorted(urllib.parse.unquote(name) for name in names)

    def ls(self, path, detail=True, **options):
        path = self._strip_protocol(path).strip("/")
        OPERATIONS.append(("ls", path))
        entries = {}
        for name in self._names():
            if name != path and path and not name.startswith(f"{path}/"):
                continue
            first = name[len(path) :].strip("/").split("/")[0]
            below = f"{path}/{first}".strip("/")
            folder = {"name": below, "size": 0, "type": "directory"}
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                entries[below] = self._entry(name) if below == name else folder
        if not entries:
            raise FileNotFoundError(path)
        return list(entries.values()) if detail else list(entries)

    def _entry(self, name):
        status = self._file(name).stat()
        return {"name": name, "size": status.st_size, "type": "file", "mtime": status.st_mtime}

    def modified(self, path):
        when = self._file(path).stat().st_mtime
        return datetime.datetime.fromtimestamp(when, datetime.UTC)

    def cat_file(self, path, start=None, end=None, **options):
        OPERATIONS.append(("cat", self._strip_protocol(path)))
        return self._file(path).read_bytes()[slice(start, end)]

    def _open(self, path, mode="rb", **options):
        if mode != "rb":
            raise NotImplementedError(f"open({mode!r}) on a flat store")
        return io.BytesIO(self.cat_file(path))

    def pipe_file(self, path, value, mode="overwrite", **options):
        OPERATIONS.append((mode, self._strip_protocol(path)))
        handle, partial = tempfile.mkstemp(dir=self.folder, prefix=".")
        with os.fdopen(handle, "wb") as file:
            file.write(value)
        if mode == "create":
            try:
                os.link(partial, self._file(path))
            finally:
                os.unlink(partial)
        else:
            os.replace(partial, self._file(path))

    def put_file(self, lpath, rpath, **options):
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def get_file(self, rpath, lpath, **options):
        Path(lpath).write_bytes(self.cat_file(rpath))

    def rm_file(self, path):
        OPERATIONS.append(("remove", self._strip_protocol(path)))
        self._file(path).unlink()

    def _refuse(self, *arguments, **options):
        raise NotImplementedError("a flat store has no folders, renames, links or copies")

    mv = move = rename = cp_file = copy = link = mkdir = makedirs = rmdir = touch = _refuse


fsspec.register_implementation("flat", FlatStore, clobber=True)


def bucket(folder, monkeypatch):
    """A place in a new store, whose objects are files of a new folder."""
    folder.mkdir()
    monkeypatch.setenv("FAIRGRAPE_FLAT_STORE", str(folder))
    return as_path("flat://bucket")
