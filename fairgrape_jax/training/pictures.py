"""The pictures of a batch as the network sees them in training: altered, mixed, normalised."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jaxtyping import Float, Int

from fairgrape_jax.data import augment
from fairgrape_jax.data.dataset import Dataset


class Draw(NamedTuple):
    """What random changes of pictures are a function of, with the number of a sample."""

    run_key: jax.Array
    epoch: jax.Array


class Pictures(NamedTuple):
    """What a network learns from in one step.

    Attributes:
        images: altered, maybe mixed in pairs, and normalised.
        labels: of each, or of the first of a pair.
        mixed: where there are pairs, the labels of the second and the share of the first.
    """

    images: Float[jax.Array, "B H W C"]
    labels: Int[jax.Array, "B T"]
    mixed: tuple[Int[jax.Array, "B T"], Float[jax.Array, " B"]] | None


def prepare_pictures(
    batch: dict[str, jax.Array],
    dataset: Dataset,
    alter: augment.Augmentation | None,
    mixup: float,
    draw: Draw,
) -> Pictures:
    """The pictures of a batch as the network sees them.

    Args:
        batch: images, labels, and ids where pictures are altered.
        dataset: the normalisation.
        alter: a row of `augment.AUGMENTATIONS`; None for the pictures as they are.
        mixup: its alpha, 0 for none.
        draw: for random changes.
    """
    images, labels, mixed = batch["images"], batch["labels"], None
    if alter is not None:
        images = augment.augment_batch(alter, *draw, batch["ids"], images)
    if mixup:
        pairs = augment.mixup(mixup, *draw, batch["ids"], images, labels=labels)
        images, mixed = pairs.images, (pairs.labels, pairs.share)
    return Pictures(augment.normalise(images, dataset.mean, dataset.std), labels, mixed)
