"""Predictions of a network on a split, over padded and masked batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import losses, parallel, passes
from fairgrape_jax.data import augment
from fairgrape_jax.data.batches import padded_batches
from fairgrape_jax.data.dataset import MOST_SCORES, Dataset, Split
from fairgrape_jax.masks import Array, Tree, apply_masks
from fairgrape_jax.passes import Arrays, Fold, Key

Batch = Mapping[str, Array]  # with a leading axis of devices

LOST = -1  # the prediction of padding, and of a picture that cannot be decoded


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a network predicts for every sample of a split: each metric can be recomputed from it.

    Attributes:
        labels: (N, T) int32, the true class of each task.
        predictions: (N, T) int32, the predicted one.
        groups: (N,) int32.
        losses: (N,) float32, the cross-entropy, a mean over tasks.
        scores: (N, K) float32, the probability of each class of each task, or of the predicted one
            of each task; `dataset.score_columns` says of which. None where they were not kept.
        places: (N,) int, which samples of the split these are. None for all of them.
        names: what the pictures' files are called. None where they are not of files.
    """

    labels: np.ndarray
    predictions: np.ndarray
    groups: np.ndarray
    losses: np.ndarray
    scores: np.ndarray | None = None
    places: np.ndarray | None = None
    names: tuple[str, ...] | None = None


def make_evaluate_step(module: nn.Module, dataset: Dataset) -> Callable[..., tuple[jax.Array, ...]]:
    """The per-device step (params, batch_stats, masks, batch) -> (predictions, losses, scores).

    Every device gets the results of all devices: (devices, B, T) int32, (devices, B) float32 and
    (devices, B, K) float32. The prediction of a sample that is not valid is LOST.

    Args:
        module: the network.
        dataset: its pictures' normalisation and the classes of its tasks.
    """

    def evaluate_step(
        params: Tree, batch_stats: Tree, masks: Tree, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, ...]:
        logits: Tree = module.apply(
            {"params": apply_masks(masks, params), "batch_stats": batch_stats},
            augment.normalise(batch["images"], dataset.mean, dataset.std),
            train=False,
        )
        results = (
            jnp.where(batch["valid"][:, None], losses.predictions(logits, dataset.classes), LOST),
            losses.cross_entropy(logits, batch["labels"], dataset.classes),
            _scores(logits, dataset),
        )
        return jax.lax.all_gather(results, parallel.AXIS)

    return evaluate_step


def _scores(logits: jax.Array, dataset: Dataset) -> jax.Array:
    """Probabilities (B, K) float32, of what `dataset.score_columns` says."""
    heads = losses.split_heads(logits, dataset.classes)
    each = [jax.nn.softmax(head) for head in heads]
    if sum(dataset.classes) > MOST_SCORES:
        return jnp.stack([head.max(axis=-1) for head in each], axis=-1)
    return jnp.concatenate(each, axis=-1)


def predict(
    step: Callable[[Batch], tuple[jax.Array, ...]],
    split: Split,
    *,
    per_device: int,
    devices: Sequence[jax.Device],
    key: Key,
    fold: Fold = passes.fold,
) -> Predictions:
    """Run an evaluation step over `split`.

    The batch of one device is the same on any number of devices, and so is the chunk of samples
    in it: the same program sees the same numbers, and the counts agree to the last digit. Each
    process feeds its own rows, and every one gets the predictions of all.

    Args:
        step: batch -> (predictions, losses, scores), the lifted step with the network in it.
        split: the samples.
        per_device: images per device and call.
        devices: those of this process.
        key: what the pass over the batches computes.
        fold: how it is made.

    Returns:
        Predictions in the order of the split. A picture on disk that is lost, where such are
        skipped, has no row.
    """
    size = per_device * parallel.device_count(devices)
    place = parallel.process_index_and_count()

    def batches(begin: int) -> Iterable[Batch]:
        read = padded_batches(split, size, place, begin)
        rows = ({k: v for k, v in batch.items() if k != "groups"} for batch in read)
        cut = (parallel.split_batch(batch, devices) for batch in rows)
        return parallel.prefetch_to_devices(cut, devices)

    def add(results: Arrays, batch: Batch) -> Arrays:
        return [*results, *step(batch)]

    def finish(results: Arrays) -> list[np.ndarray]:
        rows = [np.asarray(x).reshape(size, *x.shape[2:]) for x in results]
        # In the order of the split, its padding last.
        return [np.concatenate(part)[: len(split)] for part in (rows[::3], rows[1::3], rows[2::3])]

    results = fold(add, [], batches, key=key, finish=finish)
    places = np.flatnonzero(results[0][:, 0] != LOST)
    split = split if len(places) == len(split) else split.take(places)
    predictions, sample_losses, scores = (x[places] for x in results)
    return Predictions(
        labels=split.labels,
        predictions=predictions,
        groups=split.groups,
        losses=sample_losses,
        scores=scores,
        places=places,
        names=None if split.names is None else _text(split.names),
    )


def _text(names: np.ndarray) -> tuple[str, ...]:
    return tuple(name.decode("utf-8", "backslashreplace") for name in names.tolist())
