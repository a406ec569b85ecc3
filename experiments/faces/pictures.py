"""UTKFace and CelebA with few pictures to train on and as large a test split as the data allow."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np

from fairgrape_jax.data import load
from fairgrape_jax.data.builders.in_memory import from_arrays
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.data.sources.prepared import Prepared
from fairgrape_jax.data.sources.utkface import UTKFace

SIZE = 64
VALIDATION = 1000


@dataclasses.dataclass(frozen=True)
class Task:
    """What is told from a face, and for whom.

    Attributes:
        source: of the pictures, with label and group; its path is not set.
        train: how many pictures to train on.
    """

    source: Source
    train: int


TASKS = {
    "gender by race": Task(UTKFace(label="gender", group="race", size=SIZE), 8000),
    "race by gender": Task(UTKFace(label="race", group="gender", size=SIZE), 8000),
    # The groups are the four cells of gender and label: men with blond hair are the rare one.
    "blond hair": Task(
        Prepared(
            dataset="celeb_a_attributes", label="Blond_Hair", group="Male+Blond_Hair", size=SIZE
        ),
        4000,
    ),
}


@functools.cache
def arrays(name: str, folder: Path) -> Source:
    """The pictures of a task: some to train on, 1,000 to validate on, all others for the test.

    Args:
        name: of TASKS.
        folder: with utkface/, an archive or pictures, and celeb_a_attributes/, as
            `fairgrape data prepare` writes it.
    """
    task = TASKS[name]
    utkface = isinstance(task.source, UTKFace)
    source = dataclasses.replace(task.source, path=str(folder / "utkface" if utkface else folder))
    whole = load(source)
    parts = (whole.train, whole.validation, whole.test)
    images = np.concatenate([part.images[np.arange(len(part))] for part in parts])
    return from_arrays(
        images,
        {whole.tasks[0].name: np.concatenate([part.labels[:, 0] for part in parts])},
        np.concatenate([part.groups for part in parts]),
        splits=divide(images, {"train": task.train, "validation": VALIDATION}),
        classes=list(whole.tasks[0].classes),
        group_names=list(whole.groups),
    )


def divide(images: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
    """The split of every picture, by chance; equal pictures are in the same one.

    Args:
        images: (N, H, W, C) uint8.
        sizes: of the splits, about; what is left is "test".

    Returns:
        (N,) names.

    Example:
        >>> images = np.arange(6, dtype=np.uint8).repeat(2).reshape(12, 1, 1, 1)
        >>> splits = divide(images, {"train": 6, "validation": 2})
        >>> [int((splits == name).sum()) for name in ("train", "validation", "test")]
        [6, 2, 4]
        >>> bool((splits[::2] == splits[1::2]).all())
        True
    """
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    _, equal, counts = np.unique(digests, return_inverse=True, return_counts=True)
    order = np.random.default_rng(42).permutation(len(counts))
    before = np.cumsum(counts[order]) - counts[order]  # pictures that come before, in this order
    ends = np.cumsum(list(sizes.values()))
    split_of = np.empty(len(counts), np.int64)
    split_of[order] = np.searchsorted(ends, before, side="right")
    return np.array([*sizes, "test"])[split_of[equal]]
