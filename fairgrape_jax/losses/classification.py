"""Losses and predictions per sample over the heads of one or several tasks."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def split_heads(logits: jax.Array, classes: Sequence[int]) -> list[jax.Array]:
    """Cut logits (B, sum of classes) into one array (B, classes[t]) per task."""
    edges = [sum(classes[: t + 1]) for t in range(len(classes) - 1)]
    return jnp.split(logits, edges, axis=-1)


def cross_entropy(logits: jax.Array, labels: jax.Array, classes: Sequence[int]) -> jax.Array:
    """Cross-entropy of each sample, the mean over its tasks.

    logits: (B, sum of classes); labels: (B, T) int; returns (B,) float32.
    Source: FairGRAPE's protocol; its CelebA loss is the mean of 39 two-way cross-entropies.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([[0, 1]]), (2, 2)).round(3)
    Array([0.693], dtype=float32)
    """
    heads = split_heads(logits.astype(jnp.float32), classes)
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(head, labels[:, t])
        for t, head in enumerate(heads)
    ]
    return jnp.stack(losses).mean(axis=0)


def mixed_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    others: jax.Array,
    share: jax.Array,
    classes: Sequence[int],
) -> jax.Array:
    """share CE(labels) + (1 - share) CE(others) of each picture of two samples, (B,).

    labels, others: (B, T) int; share: (B,). Source: Zhang et al., "mixup" (2018).

    >>> labels, others = jnp.array([[0]]), jnp.array([[1]])
    >>> logits, share = jnp.array([[jnp.log(3.0), 0.0]]), jnp.array([0.5])
    >>> loss = mixed_cross_entropy(logits, labels, others, share, (2,))
    >>> bool(jnp.isclose(loss[0], -(jnp.log(3 / 4) + jnp.log(1 / 4)) / 2))
    True
    """
    first, second = (cross_entropy(logits, each, classes) for each in (labels, others))
    return share * first + (1 - share) * second


def predictions(logits: jax.Array, classes: Sequence[int]) -> jax.Array:
    """The most likely class of each task; (B, T) int32."""
    heads = split_heads(logits, classes)
    return jnp.stack([head.argmax(axis=-1) for head in heads], axis=-1).astype(jnp.int32)


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of the values where `valid`; 0 where nothing is."""
    return jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1).astype(values.dtype)
