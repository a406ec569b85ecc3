"""A round's importance of gradients that are never cleared: one device, one micro-batch at a time.

Every micro-batch depends on those before it, so there is nothing to divide among devices: every
process computes the same on its first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel, scoring
from fairgrape_jax.data.batches import read_images
from fairgrape_jax.masks import Tree, layer_names
from fairgrape_jax.passes import Arrays, Fold
from fairgrape_jax.rounds.scored_network import WithTeacher
from fairgrape_jax.rounds.session import Network, Session, fingerprint
from fairgrape_jax.scoring.statistics import SQUARES
from fairgrape_jax.scoring.uncleared import Uncleared, begin_uncleared
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError

if TYPE_CHECKING:
    from fairgrape_jax.rounds.score import ScoringPlan, Summary


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
    batches, split = plan.batches, session.dataset.train
    statistics: Tree = network.state.batch_stats
    if session.experiment.remedy.scores:
        statistics = WithTeacher(statistics, (network if dense is None else dense).variables)
    params, masks, statistics = jax.tree.map(
        lambda leaf: leaf.addressable_data(0), (network.state.params, network.masks, statistics)
    )

    def read(begin: int = 0) -> Iterator[dict[str, np.ndarray]]:
        for number in range(begin, len(batches.group)):
            indices = batches.indices[number]
            images, good = read_images(split, indices)
            yield {
                "images": images,
                "labels": split.labels[indices],
                "valid": batches.valid[number] & good,
                "row": batches.group[number],
            }

    def add(carried: Uncleared, batch: dict[str, np.ndarray]) -> Uncleared:
        placed = jax.device_put(batch, session.devices[0])
        return session.steps.add_uncleared(carried, statistics, masks, placed)

    def finish(carried: Uncleared) -> Arrays:
        last = session.experiment.scoring.divide == "last" and plan.rows > 1
        counts = scoring.divisors(
            batches.group[:, None], batches.valid, plan.rows, SQUARES, last_alone=last
        )
        divisor = jnp.asarray(np.maximum(counts, 1))
        mean = jax.tree.map(lambda r: r / divisor.reshape(-1, *[1] * (r.ndim - 1)), carried.rows)
        bad = [
            name
            for name, leaf in zip(layer_names(masks), jax.tree.leaves(mean), strict=True)
            if not np.isfinite(leaf).all()
        ]
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
        return jax.tree.leaves(summary.of(mean))

    full_key = {
        "pass": "scoring",
        "statistic": "uncleared",
        "result": summary.name,
        "batches": parallel.checksum(batches),
        "network": fingerprint(network),
    }
    leaves = fold(
        add, begin_uncleared(params, masks, plan.rows), read, key={**full_key, **key}, finish=finish
    )
    return jax.tree.unflatten(jax.tree.structure(network.masks), leaves)
