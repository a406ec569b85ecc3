"""Losses and predictions per sample over the heads of one or several tasks."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int, Int32

from fairgrape_jax.masks import Array

Logits = Float[Array, "*batch logit"]  # the heads of all tasks, one behind the other
Labels = Int[Array, "sample task"]
SampleLosses = Float[jax.Array, " sample"]


def split_heads(logits: Logits, classes: Sequence[int]) -> list[Float[jax.Array, "*batch _class"]]:
    """Cut the logits of all tasks into those of each, in float32 whatever a network gives.

    Args:
        logits: (B, sum of classes), of any floating point type.
        classes: how many classes each task has.

    Returns:
        (B, classes[t]) float32 of each task.

    Example:
        >>> [head.shape for head in split_heads(jnp.zeros((5, 6)), (2, 4))]
        [(5, 2), (5, 4)]
    """
    edges = [sum(classes[: t + 1]) for t in range(len(classes) - 1)]
    return jnp.split(jnp.asarray(logits, jnp.float32), edges, axis=-1)


def cross_entropy(
    logits: Float[Array, "sample logit"], labels: Labels, classes: Sequence[int]
) -> SampleLosses:
    """Cross-entropy of each sample, the mean over its tasks.

    Args:
        logits: (B, sum of classes).
        labels: (B, T) int.
        classes: how many classes each task has.

    Returns:
        (B,) float32.

    Source:
        FairGRAPE (arXiv 2207.10888), whose CelebA loss is the mean of 39 two-way cross-entropies.

    Example:
        >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([[0, 1]]), (2, 2)).round(3)
        Array([0.693], dtype=float32)
    """
    heads = split_heads(logits, classes)
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(head, labels[:, t])
        for t, head in enumerate(heads)
    ]
    return jnp.stack(losses).mean(axis=0)


def mixed_cross_entropy(
    logits: Float[Array, "sample logit"],
    labels: Labels,
    others: Labels,
    share: Float[jax.Array, " sample"],
    classes: Sequence[int],
) -> SampleLosses:
    """share CE(labels) + (1 - share) CE(others) of pictures that are mixed of two samples.

    Args:
        logits: (B, sum of classes).
        labels: (B, T) int, of the first sample.
        others: (B, T) int, of the second.
        share: (B,) 0 to 1, how much of the picture is the first.
        classes: how many classes each task has.

    Returns:
        (B,) float32.

    Source:
        Zhang et al., "mixup" (2018).

    Example:
        >>> labels, others = jnp.array([[0]]), jnp.array([[1]])
        >>> logits, share = jnp.array([[jnp.log(3.0), 0.0]]), jnp.array([0.5])
        >>> loss = mixed_cross_entropy(logits, labels, others, share, (2,))
        >>> bool(jnp.isclose(loss[0], -(jnp.log(3 / 4) + jnp.log(1 / 4)) / 2))
        True
    """
    first, second = (cross_entropy(logits, each, classes) for each in (labels, others))
    return share * first + (1 - share) * second


def predictions(
    logits: Float[Array, "sample logit"], classes: Sequence[int]
) -> Int32[jax.Array, "sample task"]:
    """The most likely class of each task.

    Args:
        logits: (B, sum of classes).
        classes: how many classes each task has.

    Returns:
        (B, T) int32; of equally likely classes the lowest.

    Example:
        >>> predictions(jnp.array([[0.0, 1.0, 3.0, 2.0]]), (2, 2))
        Array([[1, 0]], dtype=int32)
    """
    heads = split_heads(logits, classes)
    return jnp.stack([head.argmax(axis=-1) for head in heads], axis=-1).astype(jnp.int32)


def masked_mean(values: Float[Array, "*shape"], valid: Bool[Array, "*shape"]) -> jax.Array:
    """Mean of the values that are valid.

    Args:
        values: of any shape.
        valid: bool of that shape.

    Returns:
        (); 0 where nothing is valid.

    Example:
        >>> masked_mean(jnp.array([1.0, 5.0, jnp.nan]), jnp.array([True, True, False]))
        Array(3., dtype=float32)
    """
    return jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1).astype(values.dtype)
