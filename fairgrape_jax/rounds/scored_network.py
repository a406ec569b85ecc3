"""The network as statistics of importance look at it: its outputs, and the loss of its samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from fairgrape_jax import losses
from fairgrape_jax.config import Form
from fairgrape_jax.data import augment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.losses.distillation import Performance
from fairgrape_jax.masks import Tree
from fairgrape_jax.models.batchnorm import normalise_by_valid_samples
from fairgrape_jax.scoring.statistics import ScoredNetwork


class WithTeacher(NamedTuple):
    """Running statistics, and the dense network's variables, for a loss that looks at it."""

    batch_stats: Tree
    teacher: Tree


def make_scored_network(
    module: nn.Module, dataset: Dataset, form: Form, pw: Performance | None = None
) -> Callable[[Tree], ScoredNetwork]:
    """A function of batch statistics, or of `WithTeacher`, to the network that statistics look at.

    Its loss is the mean of the valid samples; with valid (G, b), form "mixed", the (G,) means of
    each group. "pure" uses the running statistics, "mixed" those of the samples that are valid for
    any group, on this device alone: the result must not depend on how many devices there are.

    Args:
        module: the network.
        dataset: its pictures' normalisation and the classes of its tasks.
        form: which batch statistics normalise.
        pw: the loss is the performance-weighted one where there is a teacher.
    """
    alone = module.clone(axis_name=None)

    def make_network(statistics: Tree) -> ScoredNetwork:
        with_teacher = isinstance(statistics, WithTeacher)
        batch_stats, teacher = statistics if with_teacher else (statistics, None)

        def apply(params: Tree, images: jax.Array, **options: Any) -> Tree:
            pictures = augment.normalise(images, dataset.mean, dataset.std)
            return alone.apply({"params": params, "batch_stats": batch_stats}, pictures, **options)

        def loss(params: Tree, images: jax.Array, labels: jax.Array, valid: jax.Array) -> jax.Array:
            if form == "mixed":
                with normalise_by_valid_samples(valid.reshape(-1, len(images)).any(axis=0)):
                    logits, _ = apply(params, images, train=True, mutable="batch_stats")
            else:
                logits = apply(params, images)
            if teacher is None or pw is None:
                each = losses.cross_entropy(logits, labels, dataset.classes)
            else:
                pictures = augment.normalise(images, dataset.mean, dataset.std)
                target: Tree = alone.apply(teacher, pictures)
                each = losses.performance_cross_entropy(logits, target, labels, dataset.classes, pw)
            mean = losses.masked_mean
            return mean(each, valid) if valid.ndim == 1 else jax.vmap(mean, (None, 0))(each, valid)

        return ScoredNetwork(apply, loss, dataset.classes)

    return make_network
