"""Arrays in memory as a dataset, or their records in the folder of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fairgrape_jax.data.dataset import NO_GROUP, Dataset, Split, Task
from fairgrape_jax.data.images.records import ABOUT, THREADS, dataset_directory, expand_home
from fairgrape_jax.data.sources.base import (
    SPLIT_STREAM,
    Reading,
    Source,
    check_options,
    kept_indices,
    stream,
    three_ways,
)
from fairgrape_jax.data.sources.splits import NAMES
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress
from fairgrape_jax.storage import is_object_path

DATASET = "arrays"  # what the records are called in their folder
BY_SEED = -1  # the part of a sample that the seed puts somewhere
GROUP = "group"  # the column of the groups
CHUNK = 4096  # pictures looked at together, which bounds the memory of their other forms


@dataclasses.dataclass(frozen=True)
class Arrays(Source):
    """Arrays that `fairgrape_jax.from_arrays` was called with.

    path: the folder of their records; empty: they are in memory, and a run keeps them in its own
    folder. label: some of the tasks, with commas between them; empty: all.
    """

    fingerprint: str = ""
    """SHA-256 of the arrays and names; empty: whatever the folder holds."""

    name: ClassVar[str] = DATASET

    def __post_init__(self) -> None:
        # Held as long as one of those that name them lives.
        object.__setattr__(self, "_content", IN_MEMORY.get(self.fingerprint))


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """What `from_arrays` was given, in one form.

    Attributes:
        images: (N, H, W, C) uint8.
        labels: (N, T) int32.
        groups: (N,) int32, NO_GROUP for a sample in none.
        parts: (N,) int8, 0, 1, 2 for training, validation, test; BY_SEED for all, or none.
        tasks: what is predicted.
        names: of the groups.
        mean: of each channel, of pictures in [0, 1].
        std: their standard deviation.
        notes: what a user should know of them.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    parts: np.ndarray
    tasks: tuple[Task, ...]
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()


# What is in memory, by fingerprint.
IN_MEMORY: weakref.WeakValueDictionary[str, Content] = weakref.WeakValueDictionary()


def load(
    source: Arrays, progress: Progress | None = None, reading: Reading | None = None
) -> Dataset:
    """The dataset, from memory or from its records.

    Args:
        source: Its options.
        progress: Called with (pictures read, pictures in all).
        reading: Of no use here: all is read into memory.

    Returns:
        The dataset; the same from both.

    Raises:
        UsageError: The arrays are neither in memory nor in the folder, or those in the folder are
            others or damaged.
    """
    content = IN_MEMORY.get(source.fingerprint)
    if content is None:
        if not source.path:
            raise UsageError(
                "arrays: these are not in this process; call from_arrays with them again, or give "
                "path, a folder that it has written"
            )
        content = read(source, progress)
    return dataset_of(content, source)


def locate(source: Source, directory: Path) -> Source:
    """A source as a run in a directory reads it: arrays without a folder are kept in the run's.

    Args:
        source: Any dataset's.
        directory: Of the run.

    Returns:
        The same, with the folder.
    """
    if isinstance(source, Arrays) and not source.path:
        if is_object_path(directory):
            raise UsageError(
                f"{directory}: arrays from Python are kept with their run, on a local disk; give "
                "from_arrays(..., directory=) a local folder for them"
            )
        return dataclasses.replace(source, path=str(directory / "data"))
    return source


def dataset_of(content: Content, source: Arrays) -> Dataset:
    """The dataset that options make of arrays.

    Args:
        content: The arrays.
        source: The options.

    Returns:
        Three splits.

    Raises:
        UsageError: An option cannot be used.
    """
    tasks, parts = chosen_tasks(content, source), content.parts
    if (parts == BY_SEED).any():
        units = _equal_pictures(content.images)
        parts = three_ways(int(units.max()) + 1, stream(source.seed, SPLIT_STREAM))[units]
    splits = []
    for number in range(len(NAMES)):
        members = np.flatnonzero(parts == number)
        kept = kept_indices(source, content.groups[members], content.names, training=number == 0)
        rows = members[kept]
        labels = content.labels[rows][:, tasks]
        splits.append(Split(content.images[rows], labels, content.groups[rows]))
    missing = int((content.groups == NO_GROUP).sum())
    notes = list(content.notes)
    if missing:
        notes.append(
            f"{missing:,} of {len(content.groups):,} pictures are in no group: they are trained on "
            "and count overall, and for no group"
        )
    train, validation, test = splits
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        tasks=tuple(content.tasks[task] for task in tasks),
        groups=content.names,
        mean=content.mean,
        std=content.std,
        notes=tuple(notes),
        allow_missing_groups=missing > 0,
    )


def chosen_tasks(content: Content, source: Arrays) -> list[int]:
    """The numbers of the tasks that options name, all of them by default.

    Args:
        content: The arrays.
        source: The options.

    Raises:
        UsageError: An option cannot be used.
    """
    check_options(source, content.names)
    if source.group not in ("", GROUP):
        raise UsageError(f"group={source.group!r}: arrays have one column of groups, {GROUP!r}")
    if source.size and content.images.shape[1:3] != (source.size, source.size):
        raise UsageError(f"size={source.size}: arrays keep their size; resize them before")
    known = [task.name for task in content.tasks]
    chosen = [name.strip() for name in source.label.split(",")] if source.label else known
    if unknown := [name for name in chosen if name not in known]:
        raise UsageError(f"label={unknown[0]!r}: no such task; known: {', '.join(known)}")
    return [known.index(name) for name in chosen]


def fingerprint(content: Content) -> str:
    """SHA-256 of all that makes a dataset of arrays, in hexadecimal.

    Args:
        content: The arrays.
    """
    about = describe(content)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for array in (content.images, content.labels, content.groups, content.parts):
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def describe(content: Content) -> dict[str, Any]:
    """All but the arrays themselves, as plain values.

    Args:
        content: The arrays.
    """
    return {
        "shape": list(content.images.shape[1:]),
        "tasks": [[task.name, list(task.classes)] for task in content.tasks],
        "groups": list(content.names),
        "mean": list(content.mean),
        "std": list(content.std),
        "notes": list(content.notes),
    }


def read(source: Arrays, progress: Progress | None = None) -> Content:
    """The arrays of a folder of records.

    Args:
        source: With the folder.
        progress: Called with (pictures read, pictures in all).

    Returns:
        The arrays, in the order that they had.

    Raises:
        UsageError: There are none, or others, or damaged ones.
    """
    target = dataset_directory(DATASET, expand_home(source.path))
    if not (target / ABOUT).is_file():
        raise UsageError(f"{target}: holds no arrays; call from_arrays with them, and run again")
    stored = stored_in(target)
    about = stored.about["options"]
    there = str(about.get("fingerprint", ""))
    if source.fingerprint not in ("", there):
        raise UsageError(other_arrays(target, there, source.fingerprint))
    again = f"remove {target} and call from_arrays with the arrays again"
    try:
        shape = tuple(map(int, about["shape"]))
        names, classes = tuple(about["groups"]), [Task(n, tuple(c)) for n, c in about["tasks"]]
        order = np.argsort(stored.columns["name"].astype(np.int64))
        images = np.empty((len(order), *shape), np.uint8)

        def fill(place: int) -> None:
            images[place] = unpack(stored.records.content(order[place]), shape)

        with ThreadPoolExecutor(THREADS) as pool:
            for done, _ in enumerate(pool.map(fill, range(len(order))), 1):
                if progress and (done % CHUNK == 0 or done == len(order)):
                    progress(done, len(order))
        values = stored.columns["values"][order].astype(np.int32)
        split = stored.columns["split"][order].astype(str)
        parts = np.array([NAMES.index(s) if s in NAMES else BY_SEED for s in split], np.int8)
        content = Content(
            images,
            np.ascontiguousarray(values[:, :-1]),
            np.ascontiguousarray(values[:, -1]),
            parts,
            tuple(classes),
            names,
            tuple(about["mean"]),
            tuple(about["std"]),
            tuple(about["notes"]),
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UsageError(f"{target}: cannot be read ({error}); {again}") from error
    if fingerprint(content) != there:
        raise UsageError(f"{target}: is not as it was written; {again}")
    return content


def pack(picture: np.ndarray) -> bytes:
    """A picture as a PNG file, to the bit; other than of 1 or 3 channels these lie side by side.

    Args:
        picture: (H, W, C) uint8.

    Example:
        >>> pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        >>> bool((unpack(pack(pixels), (2, 3, 4)) == pixels).all())
        True
    """
    from PIL import Image  # as in every dataset, when a picture is needed

    flat = picture if picture.shape[-1] == 3 else picture.reshape(len(picture), -1)
    file = io.BytesIO()
    Image.fromarray(flat).save(file, "png", compress_level=1)
    return file.getvalue()


def unpack(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The picture of `pack`.

    Args:
        content: The PNG file.
        shape: (H, W, C).

    Returns:
        (H, W, C) uint8.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture).reshape(shape)


def other_arrays(target: Path, there: str, here: str) -> str:
    """What is wrong where a folder holds other arrays.

    Args:
        target: The folder.
        there: The fingerprint of its arrays.
        here: That of those which were expected.
    """
    return (
        f"{target}: holds other arrays (fingerprint {there[:12]}, here {here[:12]}); give the "
        "arrays that it was written with, or another folder"
    )


def _equal_pictures(images: np.ndarray) -> np.ndarray:
    """A number for each picture, the same for equal ones."""
    digests = [hashlib.sha256(image.data).digest() for image in images]
    return np.unique(np.array(digests, "V32").view("S32"), return_inverse=True)[1].reshape(-1)
