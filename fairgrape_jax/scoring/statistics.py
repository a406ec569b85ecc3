"""What a method averages over the scoring sample: a function of the network and a micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax

from fairgrape_jax.masks import Tree, select_prunable
from fairgrape_jax.scoring.importance import Loss, weigh

MicroBatch = Mapping[str, jax.Array]  # images, labels, valid and its number


class ScoredNetwork(NamedTuple):
    """The network that is scored, in evaluation.

    Attributes:
        logits: (params, images (b, H, W, C)) to (b, sum of classes).
        loss: (params, images, labels (b, T), valid (b,)) to the mean cross-entropy of the valid.
        classes: of each task.
    """

    logits: Callable[[Tree, jax.Array], jax.Array]
    loss: Loss
    classes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A value per weight and micro-batch, and the weight of a micro-batch in the mean.

    The functions are compiled once per run if they are those of a module, not made anew.

    Attributes:
        per: "batch", every micro-batch counts alike, or "sample", every sample does.
        of_gradient: (masks, params, gradient of the mean loss) to the value, a tree of w.shape with
            None where not prunable.
        of_network: where that is not enough, (network, params, masks, batch, extra) to the value;
            batch: images, labels, valid and the micro-batch's number, a dict; extra: what the
            caller passes on.
    """

    per: Literal["batch", "sample"]
    of_gradient: Callable[[Tree, Tree, Tree], Tree] | None = None
    of_network: Callable[[ScoredNetwork, Tree, Tree, MicroBatch, Tree], Tree] | None = None

    def __call__(
        self, network: ScoredNetwork, params: Tree, masks: Tree, batch: MicroBatch, extra: Tree
    ) -> Tree:
        """The value of one micro-batch."""
        if self.of_network is not None:
            return self.of_network(network, params, masks, batch, extra)
        assert self.of_gradient is not None
        data = batch["images"], batch["labels"], batch["valid"]
        return self.of_gradient(masks, params, jax.grad(network.loss)(params, *data))


def _gradient(masks: Tree, params: Tree, gradient: Tree) -> Tree:
    return select_prunable(masks, gradient)


SQUARES = Statistic("batch", of_gradient=weigh)  # (w * g)^2
GRADIENT = Statistic("sample", of_gradient=_gradient)  # g of the mean loss over all samples
