"""Saving and restoring a run's state. The one file that imports Orbax."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import functools
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from fairgrape_jax.masks import Tree, layer_names, pack, unpack
from fairgrape_jax.parallel import hosts
from fairgrape_jax.storage import staging
from fairgrape_jax.storage.checksums import (
    Record,
    changed_files,
    directory_digests,
    read_checksummed,
    write_checksummed,
)
from fairgrape_jax.storage.files import name_path_in_errors, write_arrays
from fairgrape_jax.storage.object_store import ObjectPath

T = TypeVar("T")


def save(directory: Path, tree: Tree, metadata: Record | None = None) -> None:
    """Write a pytree to a directory, atomically, in place of what stood there before.

    The digests of all files come last, in digests.json: a checkpoint without them was never
    finished.

    Args:
        directory: where to; every process names the same one.
        tree: of arrays; None leaves are allowed.
        metadata: plain values to keep with it.

    Raises:
        OSError: of the directory, if it cannot be written.
    """
    begin_save(directory, tree, metadata)()


def begin_save(directory: Path, tree: Tree, metadata: Record | None = None) -> Callable[[], None]:
    """As `save`, but return when the arrays have been copied; files are written in the background.

    Args:
        directory: where to; every process names the same one.
        tree: of arrays; None leaves are allowed.
        metadata: plain values to keep with it.

    Returns:
        A function that waits until they are, and writes their digests; every process calls it,
        before anything else is saved to the directory.
    """
    host = jax.tree.map(_host_copy, jax.device_get(tree))
    metadata = copy.deepcopy(metadata)  # the caller's lists grow meanwhile
    # To an object store go files that Orbax has written here: for s3 it has no way, and its own way
    # to gs would need other credentials than the rest of a run.
    remote = isinstance(directory, ObjectPath)
    place = staging.folder_of_process_0() / directory.name if remote else directory
    with _remove_unfinished(place):
        if hosts.is_process_0():
            _check_directory(place)
        path = place.absolute()
        written = ocp.save_async(path, host, overwrite=True, custom_metadata=metadata)

    def complete() -> None:
        try:
            written.result()
            if hosts.is_process_0():
                write_checksummed(place / "digests.json", {"files": directory_digests(place)})
                if isinstance(directory, ObjectPath):
                    staging.publish(place, directory, last="digests.json")
        finally:
            if remote and hosts.is_process_0():
                shutil.rmtree(place.parent, ignore_errors=True)

    if not remote:
        return functools.partial(_end, place, complete)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    uploaded = executor.submit(complete)  # while training goes on
    executor.shutdown(wait=False)
    return functools.partial(_end, place, uploaded.result)


def _end(directory: Path, complete: Callable[[], None]) -> None:
    with _remove_unfinished(directory):
        complete()


def _host_copy(array: np.ndarray) -> np.ndarray:
    """A copy, where NumPy looks at a buffer of the device: a step would write over it meanwhile."""
    array = np.asarray(array)
    return array if array.flags.owndata else array.copy()


@contextlib.contextmanager
def _remove_unfinished(directory: Path) -> Iterator[None]:
    """Name the checkpoint in an OSError, and leave nothing of it behind that takes room."""
    with name_path_in_errors(directory), _quiet():
        try:
            yield
        except Exception:
            for path in directory.parent.glob(f"{directory.name}.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)
            raise


def _check_directory(directory: Path) -> None:
    """OSError if no directory can be made there: Orbax's threads would wait minutes for it."""
    probe = directory.with_name(f"{directory.name}.probe")
    probe.mkdir(parents=True, exist_ok=True)
    probe.rmdir()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Of an error in the body only what is raised, not what Orbax's threads print besides.

    They log a traceback, and each write that TensorStore has under way then finds no event loop to
    report to, for some time after: that is not shown from here on.
    """

    def other(record: logging.LogRecord) -> bool:
        return not (record.exc_info and record.filename == "future.py")

    shown, logger = sys.unraisablehook, logging.getLogger("absl")

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if str(what.exc_value) != "Event loop is closed":
            shown(what)

    logger.addFilter(other)
    sys.unraisablehook = unraisable
    try:
        yield
        sys.unraisablehook = shown
    finally:
        logger.removeFilter(other)


def damaged_files(directory: Path) -> list[str]:
    """The files of a checkpoint that are gone or not as they were written, [] if it is sound.

    Args:
        directory: of the checkpoint.
    """
    digests = read_checksummed(directory / "digests.json")
    return ["digests.json"] if digests is None else changed_files(directory, digests["files"])


def read_metadata(directory: Path) -> Record:
    """The plain values that were saved beside a checkpoint's tree.

    Args:
        directory: of the checkpoint.
    """
    with staging.readable(directory) as place:
        return dict(ocp.metadata(place.absolute()).custom_metadata or {})


def restore(directory: Path, like: T) -> T:
    """Read a pytree with the structure, shapes and dtypes of `like`, as NumPy arrays.

    Args:
        directory: of the checkpoint.
        like: a pytree of the same structure, shapes and dtypes.

    Raises:
        ValueError: that names the first leaf that differs (Orbax alone restores a part in silence),
            or the first file that is not as it was written.
    """
    return restore_with_metadata(directory, like)[0]


def restore_with_metadata(directory: Path, like: T) -> tuple[T, Record]:
    """The tree as `restore` reads it, and the plain values saved beside it.

    Args:
        directory: of the checkpoint.
        like: a pytree of the same structure, shapes and dtypes.
    """
    with _sound_files(directory) as path:
        stored = ocp.metadata(path)
        _compare(directory, stored.metadata, like)
        host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        return ocp.load(path, host), dict(stored.custom_metadata or {})


def restore_as_stored(directory: Path) -> Tree:
    """Read a checkpoint's tree as it lies there: dicts and lists of NumPy arrays.

    Args:
        directory: of the checkpoint.

    Raises:
        ValueError: that names the first file that is not as it was written.
    """
    with _sound_files(directory) as path:
        stored = ocp.metadata(path).metadata
        host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), stored)
        return ocp.load(path, host)


@contextlib.contextmanager
def _sound_files(directory: Path) -> Iterator[Path]:
    """The absolute path of a local folder with a checkpoint; ValueError unless all are sound."""
    with staging.readable(directory) as place:
        if bad := damaged_files(place):
            raise ValueError(f"{directory / bad[0]}: damaged or gone")
        yield place.absolute()


def restore_foreign(directory: Path) -> Tree:
    """The tree of an Orbax checkpoint, whoever wrote it.

    Args:
        directory: of the checkpoint; of a step of a CheckpointManager, whose tree is its item
            "default", "params" or "state"; or of a stage of a run.

    Returns:
        Dicts and lists of NumPy arrays.

    Raises:
        ValueError: it is none, or damaged.
    """
    for place in (directory / "checkpoint", directory):
        if (place / "digests.json").is_file():
            return restore_as_stored(place)
    items = [directory / name for name in ("default", "params", "state")]
    first: Exception | None = None
    for place in (directory, *(item for item in items if item.is_dir())):
        try:
            with _quiet(), staging.readable(place) as local:
                stored = ocp.metadata(local.absolute()).metadata
                host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), stored)
                return ocp.load(local.absolute(), host)
        except Exception as error:  # Orbax's and TensorStore's, of many kinds
            first = first or error
    raise ValueError(str(first))


def _compare(directory: Path, stored: Tree, expected: Tree) -> None:
    """Raise ValueError unless both trees have the same leaves of the same shapes and dtypes."""

    def leaves(tree: Tree) -> dict[tuple[str, ...], tuple[tuple[int, ...], str]]:
        with_paths = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {
            tuple(_key_name(key) for key in path): (tuple(leaf.shape), str(np.dtype(leaf.dtype)))
            for path, leaf in with_paths
        }

    have, want = leaves(stored), leaves(expected)
    for path in sorted(have.keys() | want.keys()):
        if have.get(path) != want.get(path):
            raise ValueError(
                f"{directory}: leaf {'/'.join(path)} is {have.get(path, 'absent')} in the "
                f"checkpoint and {want.get(path, 'absent')} in this run"
            )


def _key_name(key: object) -> str:
    """The name in a path entry, whether of a dict, a named tuple or a sequence."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def save_masks(path: Path, masks: Tree) -> None:
    """Write masks as packed bits that any NumPy reads: NAME and NAME.shape for every layer.

    Args:
        path: of the file.
        masks: bool leaves, None where not prunable.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, mask in zip(layer_names(masks), jax.tree.leaves(masks), strict=True):
        arrays[name] = pack(mask)
        arrays[f"{name}.shape"] = np.asarray(mask.shape, np.int64)
    write_arrays(path, arrays)


def load_masks(path: Path) -> dict[str, np.ndarray]:
    """The masks of a stage by layer name, bool arrays of the kernels' shapes.

    Args:
        path: of the file.
    """
    with path.open("rb") as file, np.load(file) as stored:
        names = [name for name in stored.files if not name.endswith(".shape")]
        return {name: unpack(stored[name], stored[f"{name}.shape"].tolist()) for name in names}
