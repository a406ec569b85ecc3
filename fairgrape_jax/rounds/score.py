"""Averages of a statistic over a round's scoring sample, added up on all devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel, scoring
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.batches import group_batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree, layer_names, map_masked
from fairgrape_jax.parallel import out_of_memory
from fairgrape_jax.rounds import steps
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.scoring.importance import weigh
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES, Statistic
from fairgrape_jax.storage import resumable
from fairgrape_jax.training import finite
from fairgrape_jax.training.step import State

# Whose samples: a row for each group; one row over all of them, over as many of every class, or
# over those of some groups.
Over = Literal["groups", "all", "classes"] | tuple[int, ...]


@out_of_memory.name_phase("scoring")
def average(
    experiment: Experiment,
    compiled: Steps,
    state: State,
    masks: Tree,
    dataset: Dataset,
    statistic: Statistic,
    *,
    over: Over = "all",
    seed: int,
    given: Any = None,
    dense: State | None = None,
    keep: Path | None = None,
) -> Tree:
    """The mean of `statistic` on the scoring sample of `seed`: a tree of (R, *w.shape), else None.

    R is the number of groups for over="groups", else 1; given: a pytree for the statistic; dense:
    the dense network, for a loss that is weighted by what it says (`remedy.pw`). Each device adds
    up its own micro-batches; there is one reduction at the end, or none where each
    device holds some of the groups (`shard_groups`). The arrays stay on the first device, or are
    NumPy's after `shard_groups`. keep: where a pass that is stopped keeps its sums, to go on from.
    """
    groups, devices, options = len(dataset.groups), compiled.devices, experiment.scoring
    mixed = options.form == "mixed" and over == "groups" and statistic.of_gradient is not None
    plan = group_batches(
        dataset.train,
        options.fraction,
        options.micro_batch,
        groups,
        seed,
        over="all" if mixed else over,
        samples=0 if over == "groups" else options.samples,
    )
    schedule = scoring.schedule(
        plan.group,
        groups,
        parallel.device_count(devices),
        1 if mixed else compiled.slots,
        shard=options.shard_groups,
    )
    # One shape for all kinds of samples: without groups, row 0 alone is used.
    held = schedule.groups[0]
    sums = scoring.empty_sums(masks, len(held), devices)
    step = compiled.accumulate_mixed if mixed else compiled.accumulate
    accumulate = step(statistic, groups, options.micro_batch)
    given = parallel.replicate(given, devices)
    beside = state.batch_stats
    if experiment.remedy.scores:
        beside = steps.Taught(beside, steps.variables(state if dense is None else dense))

    def batches(begin: int = 0) -> Iterator[Any]:
        read = scoring.micro_batches(
            dataset.train, plan, schedule, parallel.process_index_and_count(), begin
        )
        return parallel.prefetch_to_devices(read, devices)

    def add(sums: scoring.Sums, batch: Any) -> scoring.Sums:
        return accumulate(sums, state.params, beside, masks, given, batch)

    asked = {"seed": seed, "over": over, "step": int(state.step), "shape": schedule.order.shape}
    asked |= {"rows": len(held)}
    place = resumable.Place(keep, asked, devices, "leave") if keep else None
    done, kept = resumable.read(place)
    if done:
        sums = parallel.shard_arrays(
            jax.tree.unflatten(jax.tree.structure(sums), kept), devices, (0, 0)
        )
    sums = resumable.fold(add, sums, batches(done), place=place, done=done, what="the scoring")
    group = dataset.train.groups[plan.indices] if mixed else plan.group[:, None]
    counts = scoring.counts(group, plan.valid, groups, statistic)
    rows = groups if over == "groups" else 1
    if options.shard_groups:
        tree = scoring.gathered(sums.rows, schedule, masks, counts, devices)
        tree = jax.tree.map(lambda leaf: leaf[:rows], tree)
    else:
        reduced = compiled.reduce(groups)(sums.rows, counts)
        tree = jax.tree.map(lambda leaf: leaf.addressable_data(0)[0, :rows], reduced)
    if (good := np.asarray(_flags(tree))).all():
        return tree
    if keep:
        resumable.forget(keep)
    alone = (add(scoring.empty_sums(masks, len(held), devices), batch) for batch in batches())
    first = blamed(alone, schedule, devices)
    ids = plan.indices[first][plan.valid[first]].tolist() if first >= 0 else []
    one = f"micro-batch {first}" if first >= 0 else "the sum of micro-batches that each are"
    where = {"kind": "scoring", "where": f"in the scores ({one})", "seed": seed, "ids": ids}
    where |= {"micro_batch": first, "over": over}
    what = [f"statistic of {n}" for n, ok in zip(layer_names(masks), good, strict=True) if not ok]
    ordered = sorted(what, key=lambda w: compiled.layers.index(w.removeprefix("statistic of ")))
    raise finite.NotFiniteError(ordered, finite.unmarked(state), where)


def blamed(alone: Iterable[scoring.Sums], schedule: scoring.Schedule, devices: Any) -> int:
    """The number of the first micro-batch, in the order of the plan, whose statistic is not finite.

    alone: the sums of each call by itself; all processes go through all calls. -1 if every one is
    finite by itself. Where a call has several micro-batches, the first of them.
    """
    fine = [np.asarray(_rows_finite(sums)) for sums in alone]
    by_device = parallel.all_gather_rows(np.stack(fine, axis=1))  # (devices, calls)
    numbers = schedule.order.swapaxes(0, 1)[~by_device]
    return min(numbers[numbers >= 0].tolist(), default=-1)


def importance(
    experiment: Experiment,
    compiled: Steps,
    state: State,
    masks: Tree,
    dataset: Dataset,
    *,
    over: Over = "groups",
    seed: int,
    dense: State | None = None,
    keep: Path | None = None,
) -> Tree:
    """(w * g)^2 by the experiment's formula; rows and place as for `average`."""
    asked: dict[str, Any] = {"over": over, "seed": seed, "dense": dense, "keep": keep}
    if experiment.scoring.formula == "sum-of-squares":
        return average(experiment, compiled, state, masks, dataset, SQUARES, **asked)
    gradient = average(experiment, compiled, state, masks, dataset, GRADIENT, **asked)
    if experiment.scoring.shard_groups:
        return map_masked(
            lambda m, w, g: None if m is None else np.where(m, np.square(w * g), 0),
            *jax.device_get((masks, state.params)),
            gradient,
        )
    own = jax.tree.map(lambda leaf: leaf.addressable_data(0), (masks, state.params))
    return _weigh(*own, gradient)


_weigh = jax.jit(weigh, donate_argnums=2)
_flags = jax.jit(finite.flags)


@jax.jit
def _rows_finite(tree: Tree) -> jax.Array:
    """(devices,) bool, whether each device's row of every leaf is finite."""
    each = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(each).all(0)
