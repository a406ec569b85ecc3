"""Checks of an experiment: fields of each part, names in tables, options that exclude others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fairgrape_jax import methods, models, training
from fairgrape_jax.config.experiment import Epoch, Experiment
from fairgrape_jax.config.problems import Problem
from fairgrape_jax.config.protocols import apply_protocol, method_of, row_of
from fairgrape_jax.config.schedule import densities, retraining
from fairgrape_jax.config.serialize import check_types
from fairgrape_jax.data.augment import AUGMENTATIONS
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods.structure_choice import takes_structures
from fairgrape_jax.registry import Table
from fairgrape_jax.selection import schedules
from fairgrape_jax.systems.options import epochs_before_choice

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@runtime_checkable
class Checked(Protocol):
    """A part of an experiment that knows what its fields can hold."""

    def problems(self) -> Iterator[Problem]:
        """The fields that cannot be used, and what is wrong with each."""


GUIDE = "docs/extending.md"
NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")  # of a variant, which folders are called by
LARGEST = 2**31 - 1  # what a seed, a count or a size of an array may be


def check(experiment: Experiment) -> None:
    """Look at everything that can be wrong with an experiment before its data are read.

    Args:
        experiment: the experiment.

    Raises:
        UsageError: for the first field that cannot be used, by its dotted path.
    """
    check_types(experiment)
    for path, part in _parts(experiment):
        _check_plain(path, part)
    for path, part in _parts(experiment):
        for field, problem in part.problems() if isinstance(part, Checked) else ():
            raise UsageError(f"{_dotted(path, field)}: {problem}")
    _check_tables(experiment)
    _check_together(experiment)
    for name in experiment.variants or {}:
        _check_variant(experiment, name)


def check_name(name: str, table: Iterable[str], kind: str) -> None:
    """Refuse a name that is in no table.

    Args:
        name: what was named.
        table: what there is.
        kind: what to call it.

    Raises:
        UsageError: a name that is not in the table; it lists what is.
    """
    there = table.find(name) if isinstance(table, Table) else name in table
    if not there:
        hint = ""
        if isinstance(table, Table):
            hint = f"; one of your own is registered by a file that --plugin names, see `{GUIDE}`"
        raise UsageError(f"unknown {kind} {name!r}: choose from {', '.join(table)}{hint}")


def _check_tables(experiment: Experiment) -> None:
    """UsageError for a name that is in no table, and a file that is not there."""
    check_name(experiment.model, models.MODELS, "model")
    for name in experiment.methods:
        check_name(method_of(experiment, name), methods.METHODS, "method")
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
    _check_pattern(experiment)
    if experiment.quantise.active:
        _check_quantised(experiment)
    if experiment.remedy.rewind_rates > epochs:
        raise UsageError(
            f"remedy.rewind_rates: {experiment.remedy.rewind_rates} epochs of the {epochs} of the "
            "dense training; give fewer"
        )
    if experiment.scoring.form == "mixed" and experiment.execution.shard_groups:
        raise UsageError(
            "execution.shard_groups: a mixed micro-batch has a term for every group, so every "
            "device needs all of them; give --scoring.form pure, or no shard_groups"
        )
    if experiment.scoring.gradients == "accumulated" and experiment.execution.shard_groups:
        raise UsageError(
            "execution.shard_groups: accumulated gradients go through one device, a micro-batch "
            "after the other; give --scoring.gradients cleared, or no shard_groups"
        )
    if experiment.mixup and not experiment.remedy.compatible_with_mixup:
        raise UsageError(
            "mixup: the performance-weighted loss weighs a sample by its one true class, group DRO "
            "and others by its group, and a mixed picture may have two; give --mixup 0, or no such "
            "remedy"
        )
    if experiment.remedy.duals.held_out and experiment.scoring.groups:
        raise UsageError(
            "remedy.duals.held_out: the clusters of scoring.groups are of training images, and the "
            "validation split has none; give one or the other"
        )


def _check_variant(experiment: Experiment, name: str) -> None:
    """UsageError for a variant whose name cannot be one, or whose settings cannot be used."""
    if not NAME.fullmatch(name) or name == "dense" or methods.METHODS.find(name):
        raise UsageError(
            f"variants: {name!r} cannot be the name of one: give small letters, digits, _ and -, "
            "and not dense or the name of a method"
        )
    alone = (method_of(experiment, name),)
    made = dataclasses.replace(apply_protocol(experiment, name), methods=alone, variants=None)
    try:
        check(made)
    except UsageError as error:
        raise UsageError(f"variants.{name}: {error}") from error


def _check_quantised(experiment: Experiment) -> None:
    """UsageError for a round whose network would not be trained with its quantisers."""
    stage = retraining(experiment)
    for method in experiment.methods:
        epochs = sum(stage.epochs)
        if row_of(experiment, method).approach is not None:
            epochs -= epochs_before_choice(epochs, experiment.approach.part)
        if not epochs:
            raise UsageError(
                f"quantise: no epoch of a round of {method} is left after its choice, in which "
                "quantisers see the network; give more epochs of --retrain, or 0 bits"
            )


def _check_pattern(experiment: Experiment) -> None:
    pattern, last = experiment.scoring.n_of_m, densities(experiment)[-1]
    for method in experiment.methods:
        row = row_of(experiment, method)
        if (pattern or experiment.scoring.tiles) and row.counts:
            raise UsageError(
                f"scoring: {method} keeps whole filters, no {pattern or experiment.scoring.tiles}; "
                "leave one of them out"
            )
        whole = experiment.scoring.structures != "none"
        if row.of_structures and not whole:
            raise UsageError(
                f"scoring.structures: {method} chooses whole channels, not single weights; give "
                "--scoring.structures flops"
            )
        if whole and row.counts is not None and experiment.scoring.structure_multiple > 1:
            raise UsageError(
                f"scoring.structure_multiple: {method} counts units of single layers, of which no "
                "multiple is taken; leave one of them out"
            )
        if whole and row.counts is None and not takes_structures(row):
            raise UsageError(
                f"scoring.structures: {method} chooses weights by rules of its own, not whole "
                "channels; leave one of them out"
            )
    if experiment.scoring.structures != "none" and experiment.prunable != "kernels":
        raise UsageError(
            f"prunable: whole channels are pruned with all kernels that they lie in, not of "
            f"{experiment.prunable} alone; leave it out, or scoring.structures"
        )
    if pattern and last > pattern.kept / pattern.of:
        raise UsageError(
            f"scoring.n_of_m: {pattern} keeps at most {pattern.kept / pattern.of:.4g} of the "
            f"weights, and the last density is {last:.4g}; give a sparsity of at least "
            f"{1 - pattern.kept / pattern.of:.4g}"
        )


def _parts(value: DataclassInstance, path: str = "") -> Iterator[tuple[str, DataclassInstance]]:
    """The dataclasses that an experiment consists of, with their dotted paths; itself first."""
    yield path, value
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            yield from _parts(part, _dotted(path, field.name))


def _check_plain(path: str, part: DataclassInstance) -> None:
    """UsageError for numbers and words of a dataclass that nothing can be meant by."""
    for field in dataclasses.fields(part):
        name, value = _dotted(path, field.name), getattr(part, field.name)
        for one in value if isinstance(value, tuple | list) else [value]:
            if isinstance(one, float) and not abs(one) < 3e38:
                raise UsageError(f"{name}: {one} is not a finite number")  # as float32, too
            if isinstance(one, int) and abs(one) > LARGEST:
                raise UsageError(f"{name}: {one:.3g} is too large; give at most {LARGEST:,}")
            if isinstance(one, str) and "\0" in one:
                raise UsageError(f"{name}: {one!r} holds a zero byte")


def _dotted(path: str, field: str) -> str:
    return ".".join(filter(None, (path, field)))
