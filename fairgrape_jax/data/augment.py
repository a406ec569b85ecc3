"""Normalise and randomly alter pictures, on the device, inside the step.

An augmentation is a function of a key and one picture; `augment_batch` gives every sample of a
batch the key of (run, epoch, sample). So a sample is altered in the same way in the same epoch on
any number of devices, in any batch, and after a resume. `mixup`, of two samples, promises the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.data.transforms import flip, flip_shift, imagenet, paper, shift

# (key, picture (H, W, C), uint8 or float32 from 0 to 255) -> picture of the same shape
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]

STREAM, MIXUP_STREAM = 2**32 - 1, 2**32 - 2  # folded into a run's key first: no step's numbers


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Scale pictures to [0, 1] and normalise their channels.

    Args:
        images: (B, H, W, C), 0 to 255.
        mean: Of each channel, of pictures in [0, 1].
        std: Their standard deviation.

    Returns:
        (B, H, W, C) float32.
    """
    scaled = images.astype(jnp.float32) / 255.0
    per_channel = (1,) * (images.ndim - 1) + (-1,)
    shift, scale = (np.asarray(x, np.float32).reshape(per_channel) for x in (mean, std))
    return (scaled - shift) / scale


def augment_batch(
    alter: Augmentation, run_key: jax.Array, epoch: jax.Array, ids: jax.Array, images: jax.Array
) -> jax.Array:
    """Alter each picture with the key of (run, epoch, sample).

    Args:
        alter: The augmentation.
        run_key: The key of the run.
        epoch: The epoch's number, a scalar.
        ids: (B,) int32, which samples they are.
        images: (B, H, W, C), 0 to 255.

    Returns:
        Pictures of the same shape, 0 to 255.

    Example:
        >>> images = jnp.arange(16, dtype=jnp.uint8).reshape(2, 2, 4, 1)
        >>> ids = jnp.array([7, 3])
        >>> both = augment_batch(flip, jax.random.key(0), jnp.int32(1), ids, images)
        >>> alone = augment_batch(flip, jax.random.key(0), jnp.int32(1), ids[1:], images[1:])
        >>> bool((both[1:] == alone).all())
        True
    """
    return jax.vmap(alter)(_keys(run_key, STREAM, epoch, ids), images)


def _keys(run_key: jax.Array, stream: int, epoch: jax.Array, ids: jax.Array) -> jax.Array:
    """The key of (run, epoch, sample) for each of ids (B,)."""
    key = jax.random.fold_in(jax.random.fold_in(run_key, stream), epoch)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)


class Mixed(NamedTuple):
    """Pictures of two samples each.

    Attributes:
        images: (B, H, W, C) float32, 0 to 255.
        labels: (B, T), those of the second samples.
        share: (B,) float32, the part of a picture that is the first one's.
    """

    images: jax.Array
    labels: jax.Array
    share: jax.Array


def mixup(
    alpha: float,
    run_key: jax.Array,
    epoch: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    *,
    labels: jax.Array,
) -> Mixed:
    """Mix each picture with its neighbour in the batch: 0 with 1, 2 with 3.

    The share of the first is drawn from Beta(alpha, alpha) by (run, epoch, sample). An epoch's
    order is a random one, so neighbours in it are random pairs, and they are the same for any even
    batch, and on any devices that hold an even number of rows each.

    Args:
        alpha: Of the distribution of shares.
        run_key: The key of the run.
        epoch: The epoch's number, a scalar.
        ids: (B,) int32, which samples they are; B is even.
        images: (B, H, W, C), 0 to 255.
        labels: (B, T).

    Returns:
        The mixed pictures, with what the loss needs.

    Source:
        Zhang et al., "mixup" (2018). Its code draws one share for a batch, and pairs that are not
        mutual.

    Example:
        >>> images, labels = jnp.zeros((2, 1, 1, 1)).at[1].set(100.0), jnp.array([[0], [1]])
        >>> ids = jnp.array([7, 3])
        >>> mixed = mixup(1.0, jax.random.key(0), jnp.int32(0), ids, images, labels=labels)
        >>> mixed.labels.tolist()
        [[1], [0]]
        >>> bool(jnp.isclose(mixed.images[0, 0, 0, 0], 100 * (1 - mixed.share[0])))
        True
    """
    keys = _keys(run_key, MIXUP_STREAM, epoch, ids)
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    pixels = images.astype(jnp.float32)
    part = share.reshape(-1, *[1] * (images.ndim - 1))
    return Mixed(part * pixels + (1 - part) * neighbours(pixels), neighbours(labels), share)


def neighbours(rows: jax.Array) -> jax.Array:
    """Each row's neighbour.

    Args:
        rows: (B, ...); B is even.

    Returns:
        The rows in the order 1, 0, 3, 2, ...

    Example:
        >>> neighbours(jnp.arange(6)).tolist()
        [1, 0, 3, 2, 5, 4]
    """
    return rows.reshape(-1, 2, *rows.shape[1:])[:, ::-1].reshape(rows.shape)


# A new augmentation is a function of (key, picture) and one row here.
AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip": flip,
    "shift": shift,
    "flip_shift": flip_shift,
    "paper": paper,
    "imagenet": imagenet,
}
