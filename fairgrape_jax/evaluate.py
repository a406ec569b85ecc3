"""Predictions of a model on a split, over padded and masked batches."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import integrity, losses, parallel, passes
from fairgrape_jax.data import augment, pipeline
from fairgrape_jax.data.types import Dataset, Split
from fairgrape_jax.masks import Tree, apply_masks

LOST = -1  # the prediction of padding, and of a picture that cannot be decoded


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model said of every sample of a split: each metric can be recomputed from it.

    labels, predictions: (N, T) int32; groups: (N,) int32; losses: (N,) float32.
    """

    labels: np.ndarray
    predictions: np.ndarray
    groups: np.ndarray
    losses: np.ndarray


def make_evaluate_step(
    module: nn.Module, dataset: Dataset
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The per-device step (params, batch_stats, masks, batch) -> (predictions, losses).

    Every device gets what all devices say: (devices, B, T) int32 and (devices, B) float32. A
    sample that is not valid is said to be LOST.
    """

    def evaluate_step(
        params: Tree, batch_stats: Tree, masks: Tree, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        logits: Any = module.apply(
            {"params": apply_masks(masks, params), "batch_stats": batch_stats},
            augment.normalise(batch["images"], dataset.mean, dataset.std),
            train=False,
        )
        said = (
            jnp.where(batch["valid"][:, None], losses.predictions(logits, dataset.classes), LOST),
            losses.cross_entropy(logits, batch["labels"], dataset.classes),
        )
        return jax.lax.all_gather(said, parallel.AXIS)

    return evaluate_step


def predict(
    step: Callable[..., tuple[jax.Array, jax.Array]],
    devices: list[jax.Device],
    params: Tree,
    batch_stats: Tree,
    masks: Tree,
    split: Split,
    per_device: int,
    place: passes.Place | None = None,
) -> Predictions:
    """Run the lifted step over `split`.

    The batch of one device is the same on any number of devices, and so is the chunk of samples
    in it: the same program sees the same numbers, and the counts agree to the last digit. Each
    process feeds its own rows, and every one gets the predictions of all. A picture on disk that
    is lost, where such are skipped, has no row. Preempted after a notice; place: where what was
    said by then is kept, to go on from.
    """
    size = per_device * parallel.device_count(devices)
    done, kept = passes.read(place)
    begun: list[Any] = list(zip(kept[::2], kept[1::2], strict=True))
    batches = (
        parallel.split_batch({k: v for k, v in batch.items() if k != "groups"}, devices)
        for batch in pipeline.padded_batches(split, size, parallel.part(), done)
    )

    def add(said: list[Any], batch: Any) -> list[Any]:
        return [*said, step(params, batch_stats, masks, batch)]

    sent = parallel.ahead(batches, devices)
    said = passes.fold(add, begun, sent, place=place, done=done, what="an evaluation")
    predictions, sample_losses = (
        np.concatenate([np.asarray(x).reshape(size, *x.shape[2:]) for x in parts])[: len(split)]
        for parts in zip(*said, strict=True)
    )  # in the order of the split, its padding last
    said_of = predictions[:, 0] != LOST
    if said_of.all():
        return Predictions(split.labels, predictions, split.groups, sample_losses)
    rows = (split.labels, predictions, split.groups, sample_losses)
    return Predictions(*(x[said_of] for x in rows))


def write_predictions(path: Path, predicted: Predictions, dataset: Dataset) -> None:
    """One row per sample: its group, then label and prediction of each task, by name."""
    names = [task.name for task in dataset.tasks]

    def words(numbers: np.ndarray) -> list[str]:
        return [task.classes[c] for task, c in zip(dataset.tasks, numbers, strict=True)]

    with (
        integrity.replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["index", "group", *names, *[f"{name}_predicted" for name in names]])
        rows = zip(predicted.groups, predicted.labels, predicted.predictions, strict=True)
        for index, (group, labels, guesses) in enumerate(rows):
            writer.writerow([index, dataset.groups[group], *words(labels), *words(guesses)])


def read_predictions(
    path: Path, groups: tuple[str, ...], tasks: list[tuple[str, tuple[str, ...]]]
) -> Predictions:
    """The inverse of `write_predictions`; the losses are not kept and come back as NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    group_ids = {name: i for i, name in enumerate(groups)}

    def column(suffix: str) -> np.ndarray:
        ids = [[classes.index(row[name + suffix]) for row in rows] for name, classes in tasks]
        return np.asarray(ids, np.int32).T.reshape(len(rows), len(tasks))

    return Predictions(
        labels=column(""),
        predictions=column("_predicted"),
        groups=np.asarray([group_ids[row["group"]] for row in rows], np.int32),
        losses=np.full(len(rows), np.nan, np.float32),
    )
