"""Compiled programs of the tests, kept from one test run to the next in the user's cache folder.

$XDG_CACHE_HOME or ~/.cache, /fairgrape_jax/tests/VERSIONS: a folder for each set of versions, of
which the four that were used last stay, of at most LIMIT bytes each. JAX itself tells programs
apart, by what they compute, by flags and devices; the versions only let old ones be removed.
This file is imported before jax, whose settings it puts into the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from platform import python_version

KEPT = 4  # folders of other versions: `make versions` has two, several Pythons are common
LIMIT = 400_000_000  # bytes in one folder
PART = "part"  # how the names of programs that are being written begin


def use(environment: os._Environ[str] | dict[str, str]) -> str:
    """Have jax keep its programs in the user's cache folder; what could not be done, in a line.

    A folder that the environment names already is left to whoever named it. The processes of
    pytest-xdist and those that tests start have the environment of the first one.
    """
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return ""
    problem = ""
    try:
        folder = place(environment)
        prepare(folder)
    except (OSError, RuntimeError) as error:
        folder = Path(tempfile.mkdtemp(prefix="fairgrape-tests-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        problem = f"compiled programs are not kept after this test run ({error})"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    return problem


def place(environment: os._Environ[str] | dict[str, str]) -> Path:
    """The folder of these versions. RuntimeError where there is no home."""
    base = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    packages = [f"{name}-{version(name)}" for name in ("jax", "jaxlib", "fairgrape-jax")]
    return base / "fairgrape_jax" / "tests" / "_".join([*packages, f"python-{python_version()}"])


def prepare(folder: Path) -> None:
    """Make the folder and see that it can be written; remove what is old beside and in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="probe"):
        os.utime(folder)
    for old in list(newest_first(folder.parent))[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    size = 0
    for path, stat in newest_first(folder).items():
        size += stat.st_size
        if size > LIMIT or (path.name.startswith(PART) and stat.st_mtime < time.time() - 3600):
            path.unlink(missing_ok=True)


def newest_first(folder: Path) -> dict[Path, os.stat_result]:
    """What is in a folder, which other processes may be changing, by its last use."""
    found = {}
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat()
    return dict(sorted(found.items(), key=lambda one: -max(one[1].st_atime, one[1].st_mtime)))


def write_whole() -> None:
    """Have jax write a program in one instant.

    It opens the file in place: another process could read half a program, and a process that is
    killed would leave half of one for ever.
    """
    from jax._src.lru_cache import LRUCache

    def put(cache: LRUCache, key: str, program: bytes) -> None:
        target = Path(str(cache.path), f"{key}-cache")
        if target.exists():
            return
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=PART, delete=False) as file:
            file.write(program)
        os.replace(file.name, target)

    LRUCache.put = put
