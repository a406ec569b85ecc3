"""A dataset by its numbers: what the programs of a run need to know of it, without a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Description:
    """How many samples of what size, of how many classes and groups.

    Attributes:
        train: samples of the training split, and of the validation and test splits.
        validation: likewise.
        test: likewise.
        shape: (H, W, C) of a picture.
        classes: of each task.
        group_sizes: training samples of each group.
    """

    train: int
    validation: int
    test: int
    shape: tuple[int, ...]
    classes: tuple[int, ...]
    group_sizes: tuple[int, ...]

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self.group_sizes)


def describe(dataset: Dataset) -> Description:
    """What a dataset's programs depend on.

    Args:
        dataset: with its pictures.

    Returns:
        Its numbers.
    """
    members = dataset.train.groups[dataset.train.groups >= 0]
    sizes = np.bincount(members, minlength=len(dataset.groups))
    return Description(
        train=len(dataset.train),
        validation=len(dataset.validation),
        test=len(dataset.test),
        shape=tuple(dataset.shape),
        classes=dataset.classes,
        group_sizes=tuple(sizes.tolist()),
    )


def problems(description: Description) -> Iterator[str]:
    """What is wrong with numbers that were given by hand.

    Yields:
        A line for each.

    Args:
        description: the numbers that a dataset's programs depend on.
    """
    for name in ("train", "validation", "test"):
        if getattr(description, name) < 1:
            yield f"{name}: {getattr(description, name)} samples; give 1 or more"
    if len(description.shape) != 3 or min(description.shape) < 1:
        yield f"shape: {description.shape} is no (height, width, channels)"
    if not description.classes or min(description.classes) < 2:
        yield f"classes: {description.classes}; give 2 or more for each task"
    if description.groups < 2:
        yield f"groups: {description.groups}; fairness needs two or more"


def described_dataset(description: Description) -> Dataset:
    """A dataset of black pictures that take no memory, of the numbers of a description.

    Args:
        description: the numbers that a dataset's programs depend on.

    Returns:
        A dataset whose pictures are all black.

    Raises:
        UsageError: for numbers that no dataset has.

    Example:
        >>> made = described_dataset(Description(8, 2, 2, (4, 4, 3), (5,), (6, 2)))
        >>> made.shape, made.classes, len(made.groups), np.bincount(made.train.groups).tolist()
        ((4, 4, 3), (5,), 2, [6, 2])
    """
    for problem in problems(description):
        raise UsageError(problem)
    sizes = np.array(description.group_sizes)
    groups = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    channels = description.shape[-1]
    return Dataset(
        train=_split(description, np.resize(groups, description.train)),
        validation=_split(description, np.resize(groups, description.validation)),
        test=_split(description, np.resize(groups, description.test)),
        tasks=tuple(
            Task(f"task {i}", tuple(f"class {k}" for k in range(count)))
            for i, count in enumerate(description.classes)
        ),
        groups=tuple(f"group {k}" for k in range(len(sizes))),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


def _split(description: Description, groups: np.ndarray) -> Split:
    count, tasks = len(groups), len(description.classes)
    return Split(
        images=np.broadcast_to(np.uint8(0), (count, *description.shape)),
        labels=np.broadcast_to(np.int32(0), (count, tasks)),
        groups=groups,
    )
