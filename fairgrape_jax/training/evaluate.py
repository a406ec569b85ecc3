"""Predictions of a model on a split, over padded and masked batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import losses, parallel
from fairgrape_jax.data import augment
from fairgrape_jax.data.batches import padded_batches
from fairgrape_jax.data.dataset import Dataset, Split
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.storage import resumable

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
    place: resumable.Place | None = None,
) -> Predictions:
    """Run the lifted step over `split`.

    The batch of one device is the same on any number of devices, and so is the chunk of samples
    in it: the same program sees the same numbers, and the counts agree to the last digit. Each
    process feeds its own rows, and every one gets the predictions of all. A picture on disk that
    is lost, where such are skipped, has no row. Preempted after a notice; place: where what was
    said by then is kept, to go on from.
    """
    size = per_device * parallel.device_count(devices)
    done, kept = resumable.read(place)
    begun: list[Any] = list(zip(kept[::2], kept[1::2], strict=True))
    batches = (
        parallel.split_batch({k: v for k, v in batch.items() if k != "groups"}, devices)
        for batch in padded_batches(split, size, parallel.process_index_and_count(), done)
    )

    def add(said: list[Any], batch: Any) -> list[Any]:
        return [*said, step(params, batch_stats, masks, batch)]

    sent = parallel.prefetch_to_devices(batches, devices)
    said = resumable.fold(add, begun, sent, place=place, done=done, what="an evaluation")
    predictions, sample_losses = (
        np.concatenate([np.asarray(x).reshape(size, *x.shape[2:]) for x in parts])[: len(split)]
        for parts in zip(*said, strict=True)
    )  # in the order of the split, its padding last
    said_of = predictions[:, 0] != LOST
    if said_of.all():
        return Predictions(split.labels, predictions, split.groups, sample_losses)
    rows = (split.labels, predictions, split.groups, sample_losses)
    return Predictions(*(x[said_of] for x in rows))
