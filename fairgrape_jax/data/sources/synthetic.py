"""Draw pictures of any size and number, with groups of which some are harder than others."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from fairgrape_jax.data.dataset import Dataset, Split, Task
from fairgrape_jax.data.sources.base import (
    PICTURE_STREAM,
    Reading,
    Source,
    apportion,
    check_options,
    group_column,
    kept_indices,
    label_column,
    stream,
)
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress

SIZE = 32
CELLS = 8  # a picture is a coarse pattern of CELLS x CELLS squares, whatever its size
CHUNK = 4096  # pictures drawn at a time: bounds the memory of their float form


@dataclasses.dataclass(frozen=True)
class Synthetic(Source):
    """Drawn pictures: needs no files, for tests and for measuring speed."""

    samples: int = 2000
    """Pictures in all: 80 % training, 10 % validation, 10 % test."""
    groups: int = 4
    """Number of groups; a higher number means a fainter pattern, more of the group's own."""
    classes: int = 4
    """Number of classes of each task."""
    tasks: int = 1
    """Number of tasks: columns of labels."""
    channels: int = 3
    """Colour channels of a picture."""
    noise: float = 3.0
    """Standard deviation of the noise, in units of the pattern's."""
    imbalance: float = 0.7
    """Samples of each group per sample of the one before; 1: equal groups."""

    name: ClassVar[str] = "synthetic"
    LABELS: ClassVar[tuple[str, ...]] = ("class",)
    GROUPS: ClassVar[tuple[str, ...]] = ("group",)


@dataclasses.dataclass(frozen=True)
class _World:
    """What all pictures are drawn from.

    patterns: (G, T, K, CELLS, CELLS, C) of unit variance; base: (G, C) mean grey level;
    contrast: (G,) grey levels per unit of pattern.
    """

    patterns: np.ndarray
    base: np.ndarray
    contrast: np.ndarray


def load(
    source: Synthetic, progress: Progress | None = None, reading: Reading | None = None
) -> Dataset:
    """Draw the dataset; equal options give equal bits.

    Args:
        source: Its options.
        progress: Called with (samples drawn, samples in all).
        reading: How pictures are read; these are in memory whatever it says.

    Returns:
        The dataset.

    Raises:
        UsageError: An option is impossible.
    """
    names = tuple(f"group {i}" for i in range(source.groups))
    _check(source, names)
    world = _world(source)
    held_out = source.samples // 10
    sizes = (source.samples - 2 * held_out, held_out, held_out)
    done, parts = 0, []
    for number, n in enumerate(sizes):
        rng = np.random.default_rng([source.seed, PICTURE_STREAM, number])
        labels, groups = _labels_and_groups(source, n, rng)
        kept = kept_indices(source, groups, names, training=number == 0)
        images = _pictures(source, world, labels[kept], groups[kept], rng)
        parts.append(Split(images, labels[kept], groups[kept]))
        done += n
        if progress:
            progress(done, source.samples)
    classes = tuple(str(i) for i in range(source.classes))
    columns = ["class"] if source.tasks == 1 else [f"class {i}" for i in range(source.tasks)]
    grey = (0.5,) * source.channels
    train, validation, test = parts
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        tasks=tuple(Task(column, classes) for column in columns),
        groups=names,
        mean=grey,
        std=(0.25,) * source.channels,
        notes=("Drawn pictures, not data.",),
    )


def _check(source: Synthetic, names: tuple[str, ...]) -> None:
    if source.path:
        raise UsageError(f"path={source.path!r}: synthetic pictures are drawn; leave path empty")
    for name in ("groups", "classes", "tasks", "channels"):
        if getattr(source, name) < 1:
            raise UsageError(f"{name}={getattr(source, name)}: give 1 or more")
    if source.noise < 0 or not 0 < source.imbalance <= 1:
        raise UsageError(
            f"noise={source.noise}, imbalance={source.imbalance}: noise must be 0 or more,"
            " imbalance above 0 and at most 1"
        )
    if source.samples < 10 * source.groups:
        raise UsageError(
            f"samples={source.samples}: {source.groups} groups need at least"
            f" {10 * source.groups}, one of each in validation and in test"
        )
    label_column(source)
    group_column(source)
    check_options(source, names)


def _world(source: Synthetic) -> _World:
    """Each group mixes the pattern of the class with one of its own, the later the more."""
    rng = stream(source.seed, PICTURE_STREAM)
    shape = (source.tasks, source.classes, CELLS, CELLS, source.channels)
    common = rng.standard_normal(shape)
    individual = rng.standard_normal((source.groups, *shape))
    rank = np.linspace(0, 1, source.groups)
    angle = (rank * np.pi / 3)[:, None, None, None, None, None]
    faint = (1 - 0.5 * rank)[:, None, None, None, None, None]
    return _World(
        patterns=(faint * (np.cos(angle) * common + np.sin(angle) * individual)).astype(np.float32),
        base=rng.uniform(96, 160, (source.groups, source.channels)).astype(np.float32),
        contrast=(16 - 6 * rank).astype(np.float32),
    )


def _labels_and_groups(
    source: Synthetic, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, T), uniform, and groups (n,) in shuffled order, with exact group counts."""
    counts = apportion(source.imbalance ** np.arange(source.groups), n)
    groups = rng.permutation(np.repeat(np.arange(source.groups, dtype=np.int32), counts))
    return rng.integers(source.classes, size=(n, source.tasks), dtype=np.int32), groups


def _pictures(
    source: Synthetic,
    world: _World,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    size = source.size or SIZE
    images = np.empty((len(groups), size, size, source.channels), np.uint8)
    cell = np.arange(size) * CELLS // size
    for first in range(0, len(groups), CHUNK):
        part = slice(first, first + CHUNK)
        coarse = _coarse(world, labels[part], groups[part], source.noise, rng)
        images[part] = coarse[:, cell][:, :, cell]
    return images


def _coarse(
    world: _World, labels: np.ndarray, groups: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """(n, CELLS, CELLS, C) uint8: pattern of every task's class plus noise, in grey levels."""
    pattern = np.zeros((len(groups), *world.patterns.shape[3:]), np.float32)
    for task, column in enumerate(labels.T):
        pattern += world.patterns[groups, task, column]
    pattern += np.float32(noise) * rng.standard_normal(pattern.shape, dtype=np.float32)
    base, contrast = world.base[groups][:, None, None], world.contrast[groups][:, None, None, None]
    return np.clip(base + contrast * pattern, 0, 255).astype(np.uint8)
