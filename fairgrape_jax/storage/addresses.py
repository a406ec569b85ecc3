"""Whether a path is on a local disk or, by its address, on an object store."""

from __future__ import annotations

import re
from pathlib import Path

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage.object_store import ObjectPath

# Local files, and what can only be read.
NOT_STORES = frozenset(["file", "local", "http", "https", "data", "github", "git", "zip", "tar"])
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/")


def as_path(place: str | Path) -> Path:
    """A local path, or for scheme://... a place on an object store.

    A `Path` that was made of such an address, and has lost a slash by that, is one too. Whether
    there is such a store is seen when it is first asked.

    Args:
        place: as a user names it.

    Example:
        >>> as_path("runs/a"), str(as_path(Path("memory://bucket/runs") / "a"))
        (PosixPath('runs/a'), 'memory://bucket/runs/a')
    """
    scheme = _SCHEME.match(str(place))
    if isinstance(place, ObjectPath) or not scheme or scheme[1] in NOT_STORES:
        return Path(place.removeprefix("file://")) if isinstance(place, str) else place
    if "://" in str(place) or _is_known(scheme[1]):
        return ObjectPath(str(place))
    return Path(place)  # a local folder whose name ends in a colon


def is_object_path(path: Path) -> bool:
    """Whether a path is on an object store.

    Args:
        path: any.
    """
    return isinstance(path, ObjectPath)


def require_local(path: Path, what: str) -> Path:
    """The path itself.

    Args:
        path: any.
        what: needs it, for the message.

    Raises:
        UsageError: it is on an object store.
    """
    if is_object_path(path):
        raise UsageError(
            f"{path}: {what} must be on a local disk; object stores hold runs, reports and audits"
        )
    return path


def _is_known(scheme: str) -> bool:
    import fsspec

    return scheme in fsspec.available_protocols() or scheme in fsspec.registry
