"""The loss of retraining: the weighted sum of the terms of a remedy on a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from jaxtyping import Float

from fairgrape_jax.losses.classification import (
    Labels,
    SampleLosses,
    cross_entropy,
    mixed_cross_entropy,
)
from fairgrape_jax.losses.distillation import (
    OF_PAIRS,
    TERMS,
    Outputs,
    Term,
    distillation,
    performance_cross_entropy,
)
from fairgrape_jax.remedies.base import Weights
from fairgrape_jax.remedies.options import Remedy

Mixed = tuple[Labels, Float[jax.Array, " sample"]]


def label_losses(
    remedy: Remedy,
    pruned: Outputs,
    dense: Outputs | None,
    labels: Labels,
    classes: Sequence[int],
    *,
    mixed: Mixed | None = None,
) -> SampleLosses:
    """The cross-entropy of each sample, in its performance-weighted form where that is on.

    Args:
        remedy: which form.
        pruned: outputs of the network that is retrained.
        dense: outputs of the dense one for the same pictures; None where nothing looks at it.
        labels: (B, T) int.
        classes: how many classes each task has.
        mixed: as for `retraining_loss`.

    Returns:
        (B,).
    """
    if dense is not None and remedy.pw.on and remedy.pw.retrain:
        return performance_cross_entropy(pruned.logits, dense.logits, labels, classes, remedy.pw)
    if mixed is not None:
        others, share = mixed
        return mixed_cross_entropy(pruned.logits, labels, others, share, classes)
    return cross_entropy(pruned.logits, labels, classes)


def retraining_loss(
    remedy: Remedy,
    pruned: Outputs,
    dense: Outputs | None,
    labels: Labels,
    classes: Sequence[int],
    *,
    gather: Callable[[jax.Array], jax.Array] = lambda features: features,
    mixed: Mixed | None = None,
    weights: Weights | None = None,
) -> Term:
    """The weighted sum of the terms of a remedy on a batch.

    Args:
        remedy: the weights.
        pruned: outputs of the network that is retrained.
        dense: outputs of the dense one for the same pictures; None where no term looks at it.
        labels: (B, T) int.
        classes: how many classes each task has.
        gather: brings together the parts of a batch that lie on several devices, for terms of
            pairs.
        mixed: where pictures are of two samples, the second's labels (B, T) and the first's share
            (B,); all terms but the cross-entropy compare two networks on the same pictures, and
            look at no label. The performance-weighted loss has no form for it
            (`Remedy.compatible_with_mixup`).
        weights: (B,) of the samples in the cross-entropy, whose mean counts; all 1 if None.

    Returns:
        ().

    Example:
        >>> import jax.numpy as jnp
        >>> from fairgrape_jax.remedies import REMEDIES
        >>> same = Outputs(jnp.zeros((2, 3)), {"conv": jnp.ones((2, 4, 4, 5))})
        >>> labels = jnp.array([[0], [1]])
        >>> retraining_loss(REMEDIES["at+kd"], same, same, labels, (3,)).round(4)
        Array(1.0986, dtype=float32)
    """
    plain = label_losses(remedy, pruned, dense, labels, classes, mixed=mixed)
    if weights is not None:
        plain = weights * plain
    total = remedy.ce * plain.mean()
    if dense is None:
        return total
    if remedy.kd:
        divergence = distillation(pruned.logits, dense.logits, classes, remedy.temperature)
        total += remedy.kd * divergence.mean()
    pairs = [(pruned.features[key], dense.features[key]) for key in pruned.features]
    for name, term in TERMS.items():
        if weight := getattr(remedy, name):
            if name in OF_PAIRS:
                last, dense_last = pairs[-1]
                total += weight * term(gather(last), gather(dense_last))
            else:
                total += weight * sum(term(one, other) for one, other in pairs)
    return total
