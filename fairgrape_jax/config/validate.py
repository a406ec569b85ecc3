"""Checks of an experiment: names in no table, values out of range, options that exclude others."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from fairgrape_jax import losses, methods, models, parallel, training
from fairgrape_jax.config.experiment import (
    LARGEST,
    Experiment,
    Stage,
    clusters,
    densities,
    kept,
    known,
    point,
)
from fairgrape_jax.data.augment import AUGMENTATIONS
from fairgrape_jax.errors import UsageError
from fairgrape_jax.losses.distillation import Remedy
from fairgrape_jax.selection import schedules


def check(experiment: Experiment) -> None:
    """Raise UsageError for a name that no table has or a value out of range."""
    _check_plain("", experiment)
    known(experiment.model, models.MODELS, "model")
    for method in experiment.methods:
        known(method, methods.METHODS, "method")
    known(experiment.optimizer, training.OPTIMIZERS, "optimizer")
    known(experiment.augmentation, AUGMENTATIONS, "augmentation")
    known(experiment.precision, ("float32", "bfloat16"), "precision")
    known(experiment.lift, parallel.LIFTS, "lift")
    known(experiment.schedule, schedules.SCHEDULES, "schedule")
    known(experiment.protocol, ("equal", "official"), "protocol")
    for name in ("sparsity", "keep_per_round"):
        value = getattr(experiment, name)
        if not 0 < value < 1:
            raise UsageError(f"{name}: {value} is not between 0 and 1 (both excluded)")
    if experiment.scoring.advances < 1:
        raise UsageError(f"scoring.advances: {experiment.scoring.advances} is less than 1")
    greedy = experiment.scoring.deficit == "relative" and experiment.scoring.advances == 1
    if experiment.scoring.select == "threshold" and not greedy:
        raise UsageError(
            "scoring.deficit: the absolute one, or several advances, have no fixed point; "
            "give --scoring.select greedy"
        )
    if not 0 < experiment.scoring.fraction <= 1:
        raise UsageError(f"scoring.fraction: {experiment.scoring.fraction} is not in (0, 1]")
    for name, value in (
        ("batch", experiment.batch),
        ("evaluation_batch", experiment.evaluation_batch),
        ("scoring.micro_batch", experiment.scoring.micro_batch),
    ):
        if value < 1:
            raise UsageError(f"{name}: {value} is less than 1")
    if experiment.scoring.form == "mixed" and experiment.scoring.shard_groups:
        raise UsageError(
            "scoring: a mixed micro-batch has a term for every group, so every device needs all of "
            "them; give --scoring.form pure, or no shard_groups"
        )
    for name, value in (
        ("rounds", experiment.rounds),
        ("min_keep_per_layer", experiment.min_keep_per_layer),
        ("scoring.samples", experiment.scoring.samples),
    ):
        if value < 0:
            raise UsageError(f"{name}: {value} is negative")
    densities(experiment)
    for name in ("start", "rewind"):
        point(experiment, name)
    clusters(experiment.scoring)
    for name in ("methods", "seeds"):
        values = getattr(experiment, name)
        if not values or len(set(values)) < len(values):
            raise UsageError(f"{name}: {values} must be one or more, each named once")
    if min(experiment.seeds) < 0:
        raise UsageError(f"seeds: {min(experiment.seeds)} is negative; give 0 or more")
    for name in ("dense", "retrain", "final"):
        _check_stage(name, getattr(experiment, name))
    check_remedy(experiment.remedy)
    kept(experiment.checkpoints)
    if experiment.rollback.retries < 0 or not 0 < experiment.rollback.factor < 1:
        raise UsageError("rollback: retries must be at least 0, and factor between 0 and 1")
    if not 0 <= experiment.mixup < math.inf:
        raise UsageError(f"mixup: {experiment.mixup} is no alpha; give 0 for none, or 0.2, or 1")
    if experiment.mixup and not experiment.remedy.compatible_with_mixup:
        raise UsageError(
            "mixup: the performance-weighted loss weighs a sample by its one true class, and a "
            "mixed picture has two; give --mixup 0, or no remedy.pw in retraining"
        )
    if experiment.weight_decay < 0 or not 0 <= experiment.momentum < 1:
        raise UsageError("weight_decay must be at least 0, and momentum at least 0 and below 1")


def _check_plain(name: str, value: Any) -> None:
    """UsageError for numbers and words, however deep, that nothing can be meant by."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_plain(f"{name}.{field.name}".lstrip("."), getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            _check_plain(name, part)
    elif isinstance(value, float) and not abs(value) < 3e38:
        raise UsageError(f"{name}: {value} is not a finite number")  # as float32, too
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{name}: {value:.3g} is too large; give at most {LARGEST:,}")
    elif isinstance(value, str) and "\0" in value:
        raise UsageError(f"{name}: {value!r} holds a zero byte")


def check_remedy(remedy: Remedy) -> None:
    """UsageError for a weight that cannot be one, or a loss without a term."""
    weights = ("ce", "kd", *losses.TERMS)
    for name in weights:
        if getattr(remedy, name) < 0:
            raise UsageError(f"remedy.{name}: {getattr(remedy, name)} is negative")
    if not any(getattr(remedy, name) for name in weights):
        raise UsageError("remedy: all its weights are zero; give --remedy.ce 1")
    if remedy.temperature <= 0:
        raise UsageError(f"remedy.temperature: {remedy.temperature} is not positive")
    if not 0 <= remedy.pw.alpha <= 1 or remedy.pw.gamma < 0:
        raise UsageError("remedy.pw: alpha must be in [0, 1] and gamma not negative")


def _check_stage(name: str, stage: Stage) -> None:
    if len(stage.epochs) != len(stage.rates):
        raise UsageError(
            f"{name}: {len(stage.epochs)} numbers of epochs and {len(stage.rates)} rates; "
            "give as many of one as of the other"
        )
    if any(epochs < 1 for epochs in stage.epochs) or any(rate <= 0 for rate in stage.rates):
        raise UsageError(f"{name}: epochs {stage.epochs} and rates {stage.rates} must be positive")
