"""Thresholds of groups for questions of yes and no: what a model could do that knew the group.

Reported apart from everything else, since they look at a person's group when the model is used.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from fairgrape_jax.metrics.attributes import calibrated_threshold

Scores = Float[np.ndarray, "sample two"]
LARGEST = 1e6  # of a logit: beyond every one of a probability in float32


def logits_of(scores: Scores) -> Float[np.ndarray, " sample"]:
    """The logit of the second of two probabilities, finite for 0 and 1.

    Args:
        scores: (N, 2) probabilities.

    Example:
        >>> logits_of(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
        [0.0, -1000000.0]
    """
    no, yes = np.moveaxis(np.asarray(scores, np.float64), -1, 0)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(yes) - np.log(no), -LARGEST, LARGEST)


def group_thresholds(
    logits: Float[np.ndarray, " sample"],
    labels: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    num_groups: int,
) -> Float[np.ndarray, " group"]:
    """The threshold of each group at which as many of it are answered yes as there are.

    Args:
        logits: (N,) of yes, on a validation split.
        labels: (N,) 0 or 1.
        groups: (N,) the group of each sample, outside 0..num_groups-1 for none.
        num_groups: how many groups there are.

    Returns:
        (G,); 0 for a group without samples; beyond all logits where all or none are yes.

    Source:
        Iofinova et al., "Bias in Pruned Vision Models" (arXiv 2304.12622), which has one threshold
        for an attribute; one for each group of it is ours.

    Example:
        >>> logits, labels = np.array([2.0, 1.0, 4.0, 3.0]), np.array([1, 0, 1, 1])
        >>> group_thresholds(logits, labels, np.array([0, 0, 1, 1]), 3).tolist()
        [1.5, -2000000.0, 0.0]
    """
    thresholds = np.zeros(num_groups)
    for group in range(num_groups):
        inside = groups == group
        if inside.any():
            threshold = calibrated_threshold(logits[inside], labels[inside] == 1)
            thresholds[group] = np.clip(threshold, -2 * LARGEST, 2 * LARGEST)
    return thresholds


def decide(
    logits: Float[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    thresholds: Float[np.ndarray, " group"],
) -> Int[np.ndarray, " sample"]:
    """The answers by the threshold of each sample's group; 0 for a sample in none.

    Args:
        logits: (N,) of yes.
        groups: (N,) the group of each sample, outside 0..G-1 for none.
        thresholds: (G,).

    Returns:
        (N,) int32, 1 where the logit is above.

    Example:
        >>> decide(np.array([1.0, 1.0, 1.0]), np.array([0, 1, -1]), np.array([0.5, 1.5])).tolist()
        [1, 0, 1]
    """
    known = (groups >= 0) & (groups < len(thresholds))
    of_sample = np.where(known, thresholds[np.where(known, groups, 0)], 0.0)
    return (logits > of_sample).astype(np.int32)


def answer(
    scores: Float[np.ndarray, "sample two_per_task"],
    groups: Int[np.ndarray, " sample"],
    thresholds: Float[np.ndarray, "task group"],
) -> Int[np.ndarray, "sample task"]:
    """The answers to all questions by the thresholds of each sample's group.

    Args:
        scores: (N, 2 T) probabilities of no and yes for each of T questions.
        groups: (N,) the group of each sample, outside 0..G-1 for none.
        thresholds: (T, G) logits of yes.

    Returns:
        (N, T) int32, 1 for yes.

    Example:
        >>> scores = np.array([[0.4, 0.6, 0.1, 0.9], [0.4, 0.6, 0.9, 0.1]])
        >>> answer(scores, np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 0.0]])).tolist()
        [[1, 1], [0, 0]]
    """
    pairs = np.split(np.asarray(scores), len(thresholds), axis=1)
    columns = [
        decide(logits_of(pair), groups, limits)
        for pair, limits in zip(pairs, thresholds, strict=True)
    ]
    return np.stack(columns, axis=1)
