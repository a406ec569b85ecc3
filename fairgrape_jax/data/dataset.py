"""What every dataset gives: pictures, labels of one or several tasks, and group ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fairgrape_jax.data.images.records import Pictures

MOST_SCORES = 64  # classes of all tasks up to which predictions hold a score for each class
NO_GROUP = -1  # the group of a sample that is in none: it counts overall, and for no group


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing to predict.

    Attributes:
        name: What it is called.
        classes: Names of its classes, in label order.
    """

    name: str
    classes: tuple[str, ...]


def score_columns(tasks: Sequence[Task]) -> list[str]:
    """What the scores of predictions are of, as columns of a table.

    Args:
        tasks: All of a dataset.

    Returns:
        A name for each class of each task; where these are more than MOST_SCORES, one for each
        task, for its predicted class.

    Example:
        >>> score_columns([Task("mood", ("sad", "glad"))])
        ['mood_score_sad', 'mood_score_glad']
    """
    if sum(len(task.classes) for task in tasks) > MOST_SCORES:
        return [f"{task.name}_score" for task in tasks]
    return [f"{task.name}_score_{name}" for task in tasks for name in task.classes]


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        images: (N, H, W, C) uint8, in memory or on disk.
        labels: (N, T) int32, one column per task.
        groups: (N,) int32; NO_GROUP for a sample in none.
        names: (N,) UTF-8 bytes, what the pictures are called; None where they have no names.
    """

    images: np.ndarray | Pictures
    labels: np.ndarray
    groups: np.ndarray
    names: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, indices: np.ndarray) -> Split:
        """A part of the split.

        Args:
            indices: (M,) places of samples.

        Returns:
            These samples, in that order.
        """
        images = self.images
        images = images[indices] if isinstance(images, np.ndarray) else images.take(indices)
        names = None if self.names is None else self.names[indices]
        return Split(images, self.labels[indices], self.groups[indices], names)

    def evidence(self) -> tuple[np.ndarray, ...]:
        """Arrays that are equal where two splits hold the same samples; nothing is decoded.

        Returns:
            Pixels or checksums of files, labels, groups.
        """
        images = self.images
        pixels = images if isinstance(images, np.ndarray) else images.evidence
        return pixels, self.labels, self.groups


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits and the names behind their numbers.

    Attributes:
        train: What is trained and scored on.
        validation: What the best epoch is chosen by.
        test: What reports are about.
        tasks: What is predicted.
        groups: Names of the groups.
        mean: Per-channel mean of pictures scaled to [0, 1].
        std: Their standard deviation.
        notes: What a user should know about how this copy was read (files skipped, licence).
        allow_missing_groups: Whether samples may be in no group, NO_GROUP: they are trained on and
            count overall, and for no group.
    """

    train: Split
    validation: Split
    test: Split
    tasks: tuple[Task, ...]
    groups: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    allow_missing_groups: bool = False

    @property
    def classes(self) -> tuple[int, ...]:
        """The number of classes of each task."""
        return tuple(len(task.classes) for task in self.tasks)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one picture."""
        return self.train.images.shape[1:]
