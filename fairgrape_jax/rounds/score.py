"""Averages of a statistic over a round's scoring sample, added up on all devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel, passes, scoring
from fairgrape_jax.masks import Tree, layer_names, map_masked
from fairgrape_jax.parallel import out_of_memory
from fairgrape_jax.passes import Arrays, Fold
from fairgrape_jax.rounds.scored_network import WithTeacher
from fairgrape_jax.rounds.scoring_plan import MEAN, Over, ScoringPlan, Summary, plan_scoring
from fairgrape_jax.rounds.session import Network, Session, fingerprint
from fairgrape_jax.rounds.uncleared import average_uncleared
from fairgrape_jax.scoring.accumulate import Batch
from fairgrape_jax.scoring.importance import weigh
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES, Statistic
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError


@out_of_memory.name_phase("scoring")
def average(
    session: Session,
    network: Network,
    statistic: Statistic,
    *,
    seed: int,
    over: Over = "all",
    extra: Tree = None,
    dense: Network | None = None,
    fold: Fold = passes.fold,
    summary: Summary = MEAN,
) -> Tree:
    """The mean of a statistic on the scoring sample of a seed.

    Each device adds up its own micro-batches; there is one reduction at the end, or none where
    each device holds some of the groups (`shard_groups`).

    Args:
        session: the run.
        network: what is scored, on its devices.
        statistic: what is averaged.
        seed: of the sample.
        over: whose samples.
        extra: a pytree for the statistic.
        dense: the dense network, for a loss weighted by its outputs (`remedy.pw`); the scored one
            if None.
        fold: how the pass over the sample is made.
        summary: what is made of the mean.

    Returns:
        A tree of (R, *w.shape), None where not prunable; R is the number of groups for
        over="groups", else 1. The arrays are on the first device, or NumPy's after `shard_groups`
        and where `fold` has kept them.

    Raises:
        NotFiniteError: if the mean of a layer is not finite, with the first micro-batch that is
            not.
    """
    options, devices = session.experiment.scoring, session.devices
    plan = plan_scoring(session, statistic, over, seed)
    add = make_adder(session, network, statistic, plan=plan, extra=extra, dense=dense)
    rows = len(plan.schedule.groups[0])  # one shape for all kinds: without groups, row 0 alone

    def batches(begin: int = 0) -> Iterator[Batch]:
        place = parallel.process_index_and_count()
        split = session.dataset.train
        read = scoring.micro_batches(split, plan.batches, plan.schedule, place, begin)
        return parallel.prefetch_to_devices(read, devices)

    def empty() -> scoring.Sums:
        return scoring.empty_sums(network.masks, rows, devices)

    def finish(sums: scoring.Sums) -> Arrays:
        mean = mean_of_sums(session, network, statistic, plan, sums)
        if not (good := np.asarray(_flags(mean))).all():
            alone = (add(empty(), batch) for batch in batches())
            record = blame(session, network, plan, good, alone)
            details = {**record.details, "seed": seed, "over": over}
            raise NotFiniteError(dataclasses.replace(record, details=details))
        return jax.tree.leaves(summary.of(mean))

    function: Any = statistic.of_network or statistic.of_gradient
    key = {
        "pass": "scoring",
        "statistic": f"{function.__module__}.{function.__qualname__}",
        "result": summary.name,
        "over": over,
        "seed": seed,
        "form": options.form,
        "shape": [*plan.schedule.order.shape, rows],
        "extra": parallel.checksum(extra),
        "network": fingerprint(network),
    }
    leaves = fold(add, empty(), batches, key=key, finish=finish)
    return jax.tree.unflatten(jax.tree.structure(network.masks), leaves)


def make_adder(
    session: Session,
    network: Network,
    statistic: Statistic,
    *,
    plan: ScoringPlan,
    extra: Tree,
    dense: Network | None,
) -> Callable[[scoring.Sums, Batch], scoring.Sums]:
    """The function that adds a call's micro-batches to the sums.

    Args:
        session: the run.
        network: what is scored.
        statistic: what is averaged.
        plan: which micro-batches there are.
        extra: a pytree for the statistic.
        dense: the dense network, for a loss weighted by its outputs; the scored one if None.
    """
    experiment, state = session.experiment, network.state
    steps = session.steps
    make = steps.accumulate_mixed if plan.mixed else steps.accumulate
    accumulate = make(statistic, len(session.dataset.groups), experiment.scoring.micro_batch)
    extra = parallel.replicate(extra, session.devices)
    statistics: Tree = state.batch_stats
    if experiment.remedy.scores:
        statistics = WithTeacher(statistics, (network if dense is None else dense).variables)

    def add(sums: scoring.Sums, batch: Batch) -> scoring.Sums:
        return accumulate(sums, state.params, statistics, network.masks, extra, batch)

    return add


def mean_of_sums(
    session: Session, network: Network, statistic: Statistic, plan: ScoringPlan, sums: scoring.Sums
) -> Tree:
    """The sums over all devices, divided by how many micro-batches or samples are in them.

    Args:
        session: the run.
        network: what was scored.
        statistic: what is averaged.
        plan: which micro-batches were added.
        sums: of every device.
    """
    groups, batches = len(session.dataset.groups), plan.batches
    of_samples = session.dataset.train.groups[batches.indices]
    group = of_samples if plan.mixed else batches.group[:, None]
    last = session.experiment.scoring.divide == "last" and plan.rows > 1
    counts = scoring.divisors(group, batches.valid, groups, statistic, last_alone=last)
    if session.experiment.execution.shard_groups:
        tree = scoring.gather_means(
            sums.rows, plan.schedule, network.masks, counts, session.devices
        )
        return jax.tree.map(lambda leaf: leaf[: plan.rows], tree)
    reduced = session.steps.reduce(groups)(sums.rows, counts)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0)[0, : plan.rows], reduced)


def blame(
    session: Session,
    network: Network,
    plan: ScoringPlan,
    good: np.ndarray,
    alone: Iterable[scoring.Sums],
) -> NotFinite:
    """What is known of an average that is not finite.

    Args:
        session: the run.
        network: what was scored.
        plan: with which micro-batches.
        good: (layers,) bool, whether the mean of each layer is finite.
        alone: the sums of each call by itself; all processes go through all calls.
    """
    first = first_not_finite(alone, plan.schedule)
    ids: list[int] = []
    words = "the sum of micro-batches that each are"
    if first is not None:
        words = f"micro-batch {first}"
        ids = plan.batches.indices[first][plan.batches.valid[first]].tolist()
    names = [name for name, ok in zip(layer_names(network.masks), good, strict=True) if not ok]
    names.sort(key=session.steps.layers.index)
    return NotFinite(
        kind="scoring",
        where=f"in the scores ({words})",
        parts=tuple(f"statistic of {name}" for name in names),
        state=finite.to_host(network.state),
        details={"ids": ids, "micro_batch": first},
    )


def first_not_finite(alone: Iterable[scoring.Sums], schedule: scoring.Schedule) -> int | None:
    """The number of the first micro-batch, in the order of the plan, whose statistic is not finite.

    None if every one is finite by itself. Where a call has several, the first of them.

    Args:
        alone: the sums of each call by itself.
        schedule: which device took which micro-batch.
    """
    finite_rows = np.stack([np.asarray(_rows_finite(sums)) for sums in alone], axis=1)
    by_device = parallel.all_gather_rows(finite_rows)  # (devices, calls)
    numbers = schedule.order.swapaxes(0, 1)[~by_device]
    return min(numbers[numbers >= 0].tolist(), default=None)


def importance(
    session: Session,
    network: Network,
    *,
    seed: int,
    over: Over = "groups",
    dense: Network | None = None,
    fold: Fold = passes.fold,
    summary: Summary = MEAN,
) -> Tree:
    """(w * g)^2 by the experiment's formula; arguments and rows as for `average`.

    Args:
        session: as for `average`.
        network: likewise.
        seed: likewise.
        over: likewise.
        dense: likewise.
        fold: likewise.
        summary: likewise.
    """
    options: dict[str, Any] = {"over": over, "seed": seed, "dense": dense, "fold": fold}
    if session.experiment.scoring.gradients == "accumulated":
        return average_uncleared(
            session,
            network,
            plan_scoring(session, SQUARES, over, seed),
            key={"over": over, "seed": seed},
            dense=dense,
            fold=fold,
            summary=summary,
        )
    shard = session.experiment.execution.shard_groups
    if session.experiment.scoring.formula == "sum-of-squares":
        return average(session, network, SQUARES, **options, summary=summary)

    def of(gradient: Tree) -> Tree:
        return summary.of(weigh_gradient(network, gradient, on_host=shard))

    squared = Summary(f"squared {summary.name}", of)
    return average(session, network, GRADIENT, **options, summary=squared)


def weigh_gradient(network: Network, gradient: Tree, *, on_host: bool) -> Tree:
    """(w * g)^2 for each row of a gradient, where it is: on the first device, or on the host.

    Args:
        network: what was scored.
        gradient: a tree of (R, *w.shape).
        on_host: whether the gradient is on the host.
    """
    if on_host:
        return map_masked(
            lambda m, w, g: None if m is None else np.where(m, np.square(w * g), 0),
            *jax.device_get((network.masks, network.state.params)),
            gradient,
        )
    first = jax.tree.map(
        lambda leaf: leaf.addressable_data(0), (network.masks, network.state.params)
    )
    return _weigh(*first, gradient)


_weigh = jax.jit(weigh, donate_argnums=2)
_flags = jax.jit(finite.flags)


@jax.jit
def _rows_finite(tree: Tree) -> jax.Array:
    """(devices,) bool, whether each device's row of every leaf is finite."""
    each = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(each).all(0)
