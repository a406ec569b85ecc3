"""Normalisation and random augmentation of pictures, on the device, inside the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 (B, H, W, C) -> float32, scaled to [0, 1], minus mean, over std, per channel."""
    scaled = images.astype(jnp.float32) / 255.0
    return (scaled - jnp.asarray(mean)) / jnp.asarray(std)


def nothing(key: jax.Array, images: jax.Array) -> jax.Array:
    """The pictures as they are."""
    return images


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each picture mirrored left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each picture moved by up to an eighth of its side, edges repeated."""
    height, width = images.shape[1:3]
    reach = max(1, height // 8)
    offsets = jax.random.randint(key, (2, len(images)), -reach, reach + 1)
    rows = jnp.clip(jnp.arange(height) + offsets[0, :, None], 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + offsets[1, :, None], 0, width - 1)
    return jax.vmap(lambda image, r, c: image[r][:, c])(images, rows, columns)


def flip_shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrored with probability one half, then moved."""
    flip_key, shift_key = jax.random.split(key)
    return shift(shift_key, flip(flip_key, images))


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": nothing,
    "flip": flip,
    "shift": shift,
    "flip_shift": flip_shift,
}
