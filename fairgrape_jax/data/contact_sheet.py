"""Draw a contact sheet: pictures of each group beside what augmentation makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError

GAP = 4  # pixels of white between pictures
ROWS = 12  # groups shown at the most


def contact_sheet(
    dataset: Dataset, augmentation: str, columns: int = 8, mixup: float = 0.0
) -> np.ndarray:
    """Draw a row per group: its first training picture, and what epochs make of it.

    What is shown is what a training step normalises: the same functions with the same keys, seed 0.

    Args:
        dataset: The pictures.
        augmentation: A row of `augment.AUGMENTATIONS`.
        columns: Pictures in a row, one of them as it is.
        mixup: Its alpha; each epoch's picture then has that of its neighbour in the epoch in it.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UsageError: There is no such augmentation.
    """
    import jax
    import jax.numpy as jnp

    from fairgrape_jax.data import augment, batches

    if augmentation not in augment.AUGMENTATIONS:
        known = ", ".join(augment.AUGMENTATIONS)
        raise UsageError(f"unknown augmentation {augmentation!r}: choose from {known}")
    groups, count = dataset.train.groups, len(dataset.train)
    first = np.array([np.flatnonzero(groups == g)[0] for g in np.unique(groups)[:ROWS]])
    alter = augment.AUGMENTATIONS[augmentation]
    shown = [np.asarray(dataset.train.images[first])]
    run_key = jax.random.split(jax.random.key(0))[1]
    augmented = jax.jit(augment.augment_batch, static_argnums=0)
    mixed = jax.jit(augment.mixup, static_argnums=0)
    for epoch in range(columns - 1):
        order = batches.epoch_order(count, 0, epoch)
        partner = order[np.minimum(np.argsort(order)[first] ^ 1, count - 1)]
        ids = np.stack([first, partner], 1).reshape(-1) if mixup else first
        images: jax.Array | np.ndarray = np.asarray(dataset.train.images[ids])
        if alter is not None:
            images = augmented(alter, run_key, jnp.int32(epoch), ids, images)
        if mixup:
            labels = np.zeros((len(ids), 1), np.int32)
            pairs = mixed(mixup, run_key, jnp.int32(epoch), ids, images, labels=labels)
            images = pairs.images[::2]
        shown.append(np.asarray(images).round().astype(np.uint8))
    return tile(np.stack(shown, 1))


def tile(images: np.ndarray) -> np.ndarray:
    """Lay pictures out in rows and columns, with white between them.

    Args:
        images: (rows, columns, h, w, C) uint8.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> tile(np.zeros((2, 3, 5, 5, 1), np.uint8)).shape
        (22, 31, 3)
    """
    rows, columns, height, width, channels = images.shape
    out = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    if channels == 1:
        images = np.repeat(images, 3, -1)
    for row in range(rows):
        for column in range(columns):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            out[top : top + height, left : left + width] = images[row, column, ..., :3]
    return out


def write(path: Path, dataset: Dataset, augmentation: str, mixup: float = 0.0) -> None:
    """Write the contact sheet as a picture file.

    Args:
        path: The file; its ending says of which kind.
        dataset: As for `contact_sheet`.
        augmentation: As for `contact_sheet`.
        mixup: As for `contact_sheet`.
    """
    from PIL import Image

    Image.fromarray(contact_sheet(dataset, augmentation, mixup=mixup)).save(path)
