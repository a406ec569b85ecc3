"""A round's importance of gradients that are never cleared: one device, one micro-batch at a time.

Every micro-batch depends on those before it, so there is nothing to divide among devices: every
process computes the same on its first one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel, scoring
from fairgrape_jax.data.batches import GroupBatches, read_images
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.masks import Tree, layer_names
from fairgrape_jax.passes import Arrays, Fold
from fairgrape_jax.rounds.scored_network import WithTeacher
from fairgrape_jax.rounds.scoring_plan import ScoringPlan, Summary
from fairgrape_jax.rounds.session import Network, Session, fingerprint
from fairgrape_jax.scoring.statistics import SQUARES
from fairgrape_jax.scoring.uncleared import Uncleared, begin_uncleared
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError


def average_uncleared(
    session: Session,
    network: Network,
    plan: ScoringPlan,
    *,
    key: Mapping[str, Any],
    dense: Network | None,
    fold: Fold,
    summary: Summary,
) -> Tree:
    """The mean importance of every row, by `scoring.uncleared`.

    Args:
        session: the run.
        network: what is scored, on its devices; it stays as it is.
        plan: with which micro-batches, in their order.
        key: what else the pass depends on: whose samples, and the seed.
        dense: the dense network, for a loss weighted by its outputs; the scored one if None.
        fold: how the pass over the sample is made.
        summary: what is made of the mean.

    Returns:
        As `score.average`.

    Raises:
        NotFiniteError: if the mean of a layer is not finite.
    """
    read = functools.partial(read_micro_batches, session.dataset.train, plan.batches)
    statistics: Tree = network.state.batch_stats
    if session.experiment.remedy.scores:
        statistics = WithTeacher(statistics, (network if dense is None else dense).variables)
    params, masks, statistics = jax.tree.map(
        lambda leaf: leaf.addressable_data(0), (network.state.params, network.masks, statistics)
    )

    def add(carried: Uncleared, batch: dict[str, np.ndarray]) -> Uncleared:
        placed = jax.device_put(batch, session.devices[0])
        return session.steps.add_uncleared(carried, statistics, masks, placed)

    def finish(carried: Uncleared) -> Arrays:
        last = session.experiment.scoring.divide == "last"
        mean = mean_of_rows(carried, plan, last_alone=last and plan.rows > 1)
        check_finite(mean, network, key)
        return jax.tree.leaves(summary.of(mean))

    full_key = {
        "pass": "scoring",
        "statistic": "uncleared",
        "result": summary.name,
        "batches": parallel.checksum(plan.batches),
        "network": fingerprint(network),
    }
    leaves = fold(
        add, begin_uncleared(params, masks, plan.rows), read, key={**full_key, **key}, finish=finish
    )
    return jax.tree.unflatten(jax.tree.structure(network.masks), leaves)


def read_micro_batches(
    split: Split, batches: GroupBatches, begin: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """The micro-batches one after another, each with the row that it is added to.

    Args:
        split: whose samples.
        batches: which of them.
        begin: the number of the first to give.

    Yields:
        images (B, H, W, C) uint8, labels (B, T) int32, valid (B,) bool, row () int32.
    """
    for number in range(begin, len(batches.group)):
        indices = batches.indices[number]
        images, good = read_images(split, indices)
        yield {
            "images": images,
            "labels": split.labels[indices],
            "valid": batches.valid[number] & good,
            "row": batches.group[number],
        }


def mean_of_rows(carried: Uncleared, plan: ScoringPlan, *, last_alone: bool) -> Tree:
    """The sums of every row, divided by its micro-batches.

    Args:
        carried: at the end of the pass.
        plan: with which micro-batches.
        last_alone: divide the last row alone, as the official code does.
    """
    batches = plan.batches
    counts = scoring.divisors(
        batches.group[:, None], batches.valid, plan.rows, SQUARES, last_alone=last_alone
    )
    divisor = jnp.asarray(np.maximum(counts, 1))
    return jax.tree.map(lambda r: r / divisor.reshape(-1, *[1] * (r.ndim - 1)), carried.rows)


def check_finite(mean: Tree, network: Network, key: Mapping[str, Any]) -> None:
    """NotFiniteError, with the layers, for a mean that is not finite.

    Args:
        mean: a tree of (R, *w.shape).
        network: what was scored.
        key: whose samples, and the seed.
    """
    layers = zip(layer_names(network.masks), jax.tree.leaves(mean), strict=True)
    bad = [name for name, leaf in layers if not np.isfinite(leaf).all()]
    if bad:
        raise NotFiniteError(
            NotFinite(
                kind="scoring",
                where="in the scores of accumulated gradients",
                parts=tuple(f"statistic of {name}" for name in bad),
                state=finite.to_host(network.state),
                details={"ids": [], "micro_batch": None, **key},
            )
        )
