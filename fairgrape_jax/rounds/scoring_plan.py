"""The micro-batches of a scoring sample, which device adds up which, and what becomes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from fairgrape_jax import parallel, scoring
from fairgrape_jax.data.batches import GroupBatches, group_batches
from fairgrape_jax.masks import Tree
from fairgrape_jax.rounds.session import Session
from fairgrape_jax.scoring.statistics import Statistic

# Whose samples: a row for each group; one row over all of them, over as many of every class, or
# over those of some groups.
Over = Literal["groups", "all", "classes"] | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ScoringPlan:
    """Which micro-batches are scored, and which device adds them to which row.

    Attributes:
        batches: the micro-batches, by index into the training split.
        schedule: which device takes which of them.
        mixed: whether a micro-batch has samples of all groups.
        rows: how many rows the average has, 1 or G.
    """

    batches: GroupBatches
    schedule: scoring.Schedule
    mixed: bool
    rows: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is made of an average, layer by layer.

    Attributes:
        name: of the result, for its key: two that differ must have two.
        of: the tree of means -> a tree or a list with one array for each prunable layer.
    """

    name: str
    of: Callable[[Tree], Tree]


MEAN = Summary("mean", lambda mean: mean)


def plan_scoring(session: Session, statistic: Statistic, over: Over, seed: int) -> ScoringPlan:
    """The micro-batches of a seed's scoring sample, and who adds them up.

    Args:
        session: the run.
        statistic: what is averaged.
        over: whose samples.
        seed: of the sample.
    """
    dataset, options = session.dataset, session.experiment.scoring
    groups = len(dataset.groups)
    mixed = options.form == "mixed" and over == "groups" and statistic.of_gradient is not None
    batches = group_batches(
        dataset.train,
        options.fraction,
        options.micro_batch,
        groups,
        seed,
        over="all" if mixed else over,
        samples=0 if over == "groups" else options.samples,
    )
    schedule = scoring.assign_micro_batches(
        batches.group,
        groups,
        parallel.device_count(session.devices),
        1 if mixed else session.steps.slots,
        shard=session.experiment.execution.shard_groups,
    )
    return ScoringPlan(batches, schedule, mixed, groups if over == "groups" else 1)
