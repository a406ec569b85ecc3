"""Where the bytes of a file are, and which files are never data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

LEFTOVERS = frozenset(
    {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "#recycle",
     "system volume information", "lost+found"}
)  # fmt: skip
# Why a file is not read.
IS_LINK = "a link inside an archive"
IS_NO_FILE = "not a regular file"
IS_LEFTOVER = "hidden, or left behind by a system"


class Entry(NamedTuple):
    """Where the bytes of one file are.

    Attributes:
        holder: The file itself, or the archive that holds it.
        name: Its path inside the folder or the archive, with "/", without "./" in front.
        offset: Where it begins in a tar, in bytes, or its number in a zip; -1 for a whole file.
        size: Its bytes.
    """

    holder: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return str(self.holder) if self.offset < 0 else f"{self.holder}:{self.name}"


def is_leftover(name: str) -> bool:
    """Whether a path is of a hidden file or folder, or of one that a system leaves behind.

    Args:
        name: A path inside a folder or an archive, with "/".

    Returns:
        True where one of its parts begins with a dot or is one of `LEFTOVERS`.

    Example:
        >>> [is_leftover(n) for n in ("a/._1.jpg", "__MACOSX/1.jpg", "./a/../1.jpg", "a.b/1.jpg")]
        [True, True, False, False]
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return any(part.startswith(".") or part.lower() in LEFTOVERS for part in parts)
