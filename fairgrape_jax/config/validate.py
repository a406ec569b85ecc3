"""Checks of an experiment: fields of each part, names in tables, options that exclude others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fairgrape_jax import methods, models, training
from fairgrape_jax.config.experiment import Epoch, Experiment, densities
from fairgrape_jax.config.serialize import checked_types
from fairgrape_jax.data.augment import AUGMENTATIONS
from fairgrape_jax.errors import UsageError
from fairgrape_jax.selection import schedules

LARGEST = 2**31 - 1  # what a seed, a count or a size of an array may be


def check(experiment: Experiment) -> None:
    """Look at everything that can be wrong with an experiment before its data are read.

    Raises:
        UsageError: for the first field that cannot be used, by its dotted path.
    """
    checked_types(experiment)
    for path, part in _parts(experiment):
        _check_plain(path, part)
    for path, part in _parts(experiment):
        for field, problem in part.problems() if hasattr(part, "problems") else ():
            raise UsageError(f"{_joined(path, field)}: {problem}")
    _check_tables(experiment)
    _check_together(experiment)


def check_name(name: str, table: Iterable[str], kind: str) -> None:
    """UsageError unless `name` is in `table`; it lists what is."""
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}: choose from {', '.join(table)}")


def _check_tables(experiment: Experiment) -> None:
    """UsageError for a name that is in no table, and a file that is not there."""
    check_name(experiment.model, models.MODELS, "model")
    for method in experiment.methods:
        check_name(method, methods.METHODS, "method")
    check_name(experiment.optimizer, training.OPTIMIZERS, "optimizer")
    check_name(experiment.augmentation, AUGMENTATIONS, "augmentation")
    check_name(experiment.schedule, schedules.SCHEDULES, "schedule")
    clusters = experiment.scoring.groups
    if clusters and clusters.embedding:
        check_name(clusters.embedding.model, models.MODELS, "model")
        if not Path(clusters.embedding.weights).is_file():
            raise UsageError(f"scoring.groups: {clusters.embedding.weights!r} is no file")


def _check_together(experiment: Experiment) -> None:
    """UsageError for fields that do not go together."""
    densities(experiment)
    epochs = sum(experiment.dense.epochs)
    for name in ("start", "rewind"):
        point = getattr(experiment, name)
        if isinstance(point, Epoch) and point.number > epochs:
            raise UsageError(
                f"{name}: epoch {point} is not one of the {epochs} of the dense training"
            )
    if experiment.scoring.form == "mixed" and experiment.execution.shard_groups:
        raise UsageError(
            "execution.shard_groups: a mixed micro-batch has a term for every group, so every "
            "device needs all of them; give --scoring.form pure, or no shard_groups"
        )
    if experiment.mixup and not experiment.remedy.compatible_with_mixup:
        raise UsageError(
            "mixup: the performance-weighted loss weighs a sample by its one true class, and a "
            "mixed picture has two; give --mixup 0, or no remedy.pw in retraining"
        )


def _parts(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dataclasses that an experiment consists of, with their dotted paths; itself first."""
    yield path, value
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            yield from _parts(part, _joined(path, field.name))


def _check_plain(path: str, part: Any) -> None:
    """UsageError for numbers and words of a dataclass that nothing can be meant by."""
    for field in dataclasses.fields(part):
        name, value = _joined(path, field.name), getattr(part, field.name)
        for one in value if isinstance(value, tuple | list) else [value]:
            if isinstance(one, float) and not abs(one) < 3e38:
                raise UsageError(f"{name}: {one} is not a finite number")  # as float32, too
            if isinstance(one, int) and abs(one) > LARGEST:
                raise UsageError(f"{name}: {one:.3g} is too large; give at most {LARGEST:,}")
            if isinstance(one, str) and "\0" in one:
                raise UsageError(f"{name}: {one!r} holds a zero byte")


def _joined(path: str, field: str) -> str:
    return ".".join(filter(None, (path, field)))
