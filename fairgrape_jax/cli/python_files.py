"""Run a user's Python files: experiments, and plugins that register rows of tables."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from fairgrape_jax.errors import UsageError


def execute(path: Path, what: str) -> ModuleType:
    """A Python file as a module; it may import files beside it.

    Args:
        path: of the file.
        what: what it should be, for the message.

    Returns:
        The module; it is in `sys.modules`, under a name that no other file has, so that types in
        it can be looked up.

    Raises:
        UsageError: if the file fails, with the line.
    """
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"fairgrape_file_{place}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file that holds {what}")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.absolute()))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        if isinstance(error, UsageError) or not isinstance(error, Exception):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        at = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        kind = type(error).__name__
        raise UsageError(f"{path} line {at}: is no {what} ({kind}: {error})") from error
    finally:
        sys.path.pop(0)
    return module


def load_plugins(paths: Sequence[Path]) -> None:
    """Run files that register rows (`fairgrape_jax.register`).

    Args:
        paths: of the files.

    Raises:
        UsageError: for a file that is not there, or fails, or registers a name that is taken.
    """
    for path in paths:
        if not path.is_file():
            raise UsageError(f"--plugin: {path}: no such file")
        execute(path, "plugin")
