"""Terms of a loss that hold a pruned network to the dense one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from fairgrape_jax.losses.classification import Labels, Logits, SampleLosses, split_heads

Features = Float[jax.Array, "sample ..."]
Term = Float[jax.Array, ""]


@dataclasses.dataclass(frozen=True)
class Performance:
    """The performance-weighted loss: samples that the dense network does badly on weigh more.

    Source: Meyer and Wong, "A Fair Loss Function for Network Pruning" (arXiv 2211.10285); its
    code's defaults for alpha and gamma.
    """

    weights: bool = False
    """Weigh samples by alpha + (1 - alpha)(1 - s)^gamma, s the dense network's p(true class)."""
    labels: bool = False
    """Where the dense network is right, learn its probabilities in place of the label."""
    alpha: float = 0.75
    """The least weight; 1 for equal weights."""
    gamma: float = 5.0
    """How fast the weight falls with s."""
    prune: bool = True
    """Use it in the importance of weights."""
    retrain: bool = True
    """Use it in retraining."""

    @property
    def on(self) -> bool:
        """Whether it changes anything."""
        return self.weights or self.labels

    def problems(self) -> Iterator[tuple[str, str]]:
        """The fields that cannot be used, and what is wrong with each."""
        if not 0 <= self.alpha <= 1:
            yield "alpha", f"{self.alpha} is not in [0, 1]"
        if self.gamma < 0:
            yield "gamma", f"{self.gamma} is negative"


class Outputs(NamedTuple):
    """What a network makes of a batch.

    Attributes:
        logits: (B, sum of classes).
        features: by the name of a module what it gives, (B, ...).
    """

    logits: jax.Array
    features: Mapping[str, jax.Array]


def distillation(
    logits: Logits, dense: Logits, classes: Sequence[int], temperature: float
) -> SampleLosses:
    """T^2 KL(dense || pruned) of the softened probabilities, the mean over tasks.

    Args:
        logits: (B, sum of classes), of the pruned network.
        dense: (B, sum of classes), of the dense one.
        classes: how many classes each task has.
        temperature: T.

    Returns:
        (B,).

    Source:
        Hinton, Vinyals and Dean (2015), as used in Simon Says (arXiv 2106.07849) with T = 4.

    Example:
        >>> distillation(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 4.0]]), (2,), 4.0).round(4)
        Array([1.7751], dtype=float32)
    """
    divergences = []
    heads = zip(split_heads(logits, classes), split_heads(dense, classes), strict=True)
    for pruned_head, dense_head in heads:
        log_p = jax.nn.log_softmax(dense_head / temperature)
        log_q = jax.nn.log_softmax(pruned_head / temperature)
        divergences.append(temperature**2 * (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1))
    return jnp.stack(divergences).mean(axis=0)


def performance_weights(
    scores: Float[jax.Array, " sample"], alpha: float, gamma: float
) -> SampleLosses:
    """theta = alpha + (1 - alpha)(1 - s)^gamma.

    Args:
        scores: (B,) s, the dense network's probability of the true class.
        alpha: the least weight.
        gamma: how fast the weight falls with s.

    Returns:
        (B,) weights.

    Source:
        Meyer and Wong (arXiv 2211.10285).

    Example:
        >>> performance_weights(jnp.array([0.0, 0.5, 1.0]), 0.5, 2.0).tolist()
        [1.0, 0.625, 0.5]
    """
    return alpha + (1 - alpha) * (1 - scores) ** gamma


def performance_cross_entropy(
    logits: Float[jax.Array, "sample logit"],
    dense: Float[jax.Array, "sample logit"],
    labels: Labels,
    classes: Sequence[int],
    options: Performance,
) -> SampleLosses:
    """theta_i CE(pruned, y~_i) of each sample, the mean over tasks.

    y~ is the label, or with `options.labels` the dense network's probabilities where its most
    likely class is the label.

    Args:
        logits: (B, sum of classes), of the pruned network.
        dense: (B, sum of classes), of the dense one.
        labels: (B, T) int.
        classes: how many classes each task has.
        options: which of the weights and the labels are used, and the parameters of theta.

    Returns:
        (B,).

    Source:
        Meyer and Wong (arXiv 2211.10285).
    """
    heads = zip(split_heads(logits, classes), split_heads(dense, classes), strict=True)
    losses = []
    for task, (pruned_head, dense_head) in enumerate(heads):
        truth = jax.nn.one_hot(labels[:, task], classes[task], dtype=pruned_head.dtype)
        probabilities = jax.nn.softmax(dense_head)
        target, weight = truth, jnp.ones(len(pruned_head), pruned_head.dtype)
        if options.labels:
            right = dense_head.argmax(axis=-1) == labels[:, task]
            target = jnp.where(right[:, None], probabilities, truth)
        if options.weights:
            score = (probabilities * truth).sum(axis=-1)
            weight = performance_weights(score, options.alpha, options.gamma)
        losses.append(weight * optax.softmax_cross_entropy(pruned_head, target))
    return jnp.stack(losses).mean(axis=0)


def attention_map(features: Features) -> Float[jax.Array, "sample _place"]:
    """Where the features of each sample are large: the mean of squares over channels.

    Args:
        features: (B, ..., C); of (B, C) every unit is a place.

    Returns:
        (B, places), each row of unit length.

    Source:
        Zagoruyko and Komodakis (2017).

    Example:
        >>> attention_map(jnp.array([[[2.0], [0.0], [0.0]]]))
        Array([[1., 0., 0.]], dtype=float32)
    """
    squares = jnp.square(features)
    places = squares.mean(axis=-1) if features.ndim > 2 else squares
    return _unit(places.reshape(len(places), -1))


def _unit(rows: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Rows of unit length; a row of zeros stays, with a gradient of zero."""
    return rows * jax.lax.rsqrt(jnp.maximum(jnp.square(rows).sum(-1, keepdims=True), eps**2))


def attention_transfer(features: Features, dense: Features) -> Term:
    """Mean squared difference of the attention maps of two features.

    Args:
        features: (B, ..., C), of the pruned network.
        dense: (B, ..., C), of the dense one.

    Returns:
        ().

    Source:
        Zagoruyko and Komodakis (2017), as used in Simon Says (arXiv 2106.07849).
    """
    return jnp.square(attention_map(features) - attention_map(dense)).mean()


def similarity_preservation(features: Features, dense: Features) -> Term:
    """Squared difference of the similarities between samples, over B^2.

    Similarities are inner products, each sample's of unit length.

    Args:
        features: (B, ...), of the pruned network.
        dense: (B, ...), of the dense one.

    Returns:
        ().

    Source:
        Tung and Mori (2019).
    """

    def similarities(features: jax.Array) -> jax.Array:
        rows = features.reshape(len(features), -1)
        return _unit(rows @ rows.T)

    return jnp.square(similarities(features) - similarities(dense)).mean()


def probabilistic_transfer(features: Features, dense: Features, eps: float = 1e-7) -> Term:
    """Mean over pairs of p log(p / q): p, q how probable it is that a sample has another near.

    From cosine similarities c of features: (c + 1) / 2 over its sum in the sample's row.

    Args:
        features: (B, ...), of the pruned network, which gives q.
        dense: (B, ...), of the dense one, which gives p.
        eps: added to both within the logarithm.

    Returns:
        ().

    Source:
        Passalis and Tefas (2018).
    """

    def probabilities(features: jax.Array) -> jax.Array:
        rows = _unit(features.reshape(len(features), -1), eps)
        near = (rows @ rows.T + 1) / 2
        return near / near.sum(axis=-1, keepdims=True)

    p, q = probabilities(dense), probabilities(features)
    return (p * jnp.log((p + eps) / (q + eps))).mean()


def hint(features: Features, dense: Features) -> Term:
    """Mean squared difference of two features.

    Args:
        features: (B, ...), of the pruned network.
        dense: (B, ...), of the dense one.

    Returns:
        ().

    Source:
        Romero et al. (2015).
    """
    return jnp.square(features - dense).mean()


# Terms that compare features. A term of pairs looks at the whole batch, and at the last feature
# alone; the others are summed over all features. A new term is a row here and a weight in `Remedy`.
TERMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "attention": attention_transfer,
    "similarity": similarity_preservation,
    "pkt": probabilistic_transfer,
    "hints": hint,
}
OF_PAIRS = ("similarity", "pkt")
