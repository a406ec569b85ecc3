"""One round's choice: the problem as a method sees it, its masks, and their checks."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import masks, parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.dataset import NO_GROUP, Dataset
from fairgrape_jax.errors import Preempted, TrainingError, UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import METHODS, Problem, prune
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.scoring.statistics import Statistic
from fairgrape_jax.selection.counts import counts, joined, members
from fairgrape_jax.storage import resumable
from fairgrape_jax.training.step import State


def select(
    experiment: Experiment,
    compiled: Steps,
    dataset: Dataset,
    name: str,
    state: State,
    alive: Tree,
    density: float,
    seed: int,
    dense: State | None = None,
    keep: Path | None = None,
) -> tuple[Tree, dict[str, dict[str, Any]]]:
    """The masks of the next round by the method `name`, and how they were reached, by layer.

    dense: the network before pruning, for a loss that looks at it. keep: a folder for the masks,
    and until there are some for the passes over the sample: a run that is stopped while the round
    trains scores and chooses once.

    The masks are checked: nested, of the exact number in every layer or in the network, and with
    weights in every layer (TrainingError names one without). Every process selects from the same
    scores, and all go on with the masks of process 0: they are the same by construction, not only
    where all processors round alike.
    """
    place = None
    if keep:
        asked = {"method": name, "seed": seed, "density": density}
        place = resumable.Place(keep / "chosen", asked, compiled.devices)
        if kept := _kept(place, alive):
            return kept
    given = problem(experiment, compiled, dataset, state, alive, seed, dense, keep)
    chosen = parallel.broadcast_from_process_0(prune(METHODS[name], given, density))
    masks.check_nested(chosen, given.masks)
    leaves = jax.tree.leaves(chosen)
    wanted = counted(name, given, density)
    for layer, own in members(chosen, given.scope).items():
        if (found := int(joined(leaves, own).sum())) != wanted[layer]:
            raise RuntimeError(f"{name}: {layer} keeps {found} weights, not {wanted[layer]}")
    if empty := [row["layer"] for row in masks.sparsity_table(chosen) if not row["alive"]]:
        raise TrainingError(
            f"{name}: layer {empty[0]} is left without weights at density {density:.4g}, and "
            "nothing passes through it; complete rounds are kept. --min-keep-per-layer 1 avoids it"
        )
    if keep and place:
        _keep(place, chosen, given.details)
        resumable.forget(keep / "scoring_*")
    return parallel.replicate(chosen, compiled.devices), given.details


def _keep(place: resumable.Place, chosen: Tree, details: dict[str, Any]) -> None:
    bits = [np.packbits(mask) for mask in jax.tree.leaves(chosen)]
    resumable.write(place, 1, [np.frombuffer(json.dumps(details).encode(), np.uint8), *bits])


def _kept(place: resumable.Place, like: Tree) -> tuple[Tree, dict[str, dict[str, Any]]] | None:
    """What `_keep` has kept in `place`, if anything; like: masks of the same structure."""
    there, arrays = resumable.read(place)
    if not there:
        return None
    leaves, structure = jax.tree.flatten(like)
    bits = zip(arrays[1:], leaves, strict=True)
    chosen = [np.unpackbits(a, count=m.size).astype(bool).reshape(m.shape) for a, m in bits]
    details = json.loads(arrays[0].tobytes())
    return parallel.replicate(jax.tree.unflatten(structure, chosen), place.devices), details


def counted(name: str, given: Problem, density: float) -> dict[str, int]:
    """How many weights the method `name` is to keep, by layer or in the network."""
    if own := METHODS[name].counts:
        return own(given.masks, density, given.minimum, given.layers)
    return counts(given.masks, density, given.scope, given.minimum)


def problem(
    experiment: Experiment,
    compiled: Steps,
    dataset: Dataset,
    state: State,
    alive: Tree,
    seed: int,
    dense: State | None = None,
    keep: Path | None = None,
) -> Problem:
    """The network at the start of a round; what is averaged over samples is so when asked for.

    dataset: its groups are those of the scores. seed: of the scoring sample and the round's key.
    keep: as for `select`.
    """
    scoring, local = experiment.scoring, compiled.devices
    numbers, results = itertools.count(), list[tuple[resumable.Place, Tree]]()

    @contextlib.contextmanager
    def asked(over: Any, **more: Any) -> Iterator[dict[str, Any]]:
        """What a pass is asked for; one that is stopped keeps the results of those before it."""
        path = keep and keep / f"scoring_{next(numbers)}"
        try:
            yield {"over": over, "seed": seed, "dense": dense, "keep": path} | more
        except Preempted:
            for place, tree in results:
                resumable.write(place, 1, tree)
            raise

    def average(
        statistic: Statistic, over: Any = "all", given: Any = None, params: Tree = None
    ) -> Tree:
        looked_at = state
        if params is not None:
            looked_at = state._replace(params=parallel.replicate(params, local))
        look = experiment, compiled, looked_at, alive, dataset, statistic
        with asked(over, given=given) as how:
            place = None
            if keep:
                place = resumable.Place(keep / f"{how['keep'].name}_result", {"seed": seed}, local)
            there, leaves = resumable.read(place)
            if there:
                tree = jax.tree.unflatten(jax.tree.structure(alive), leaves)
            else:
                tree = jax.device_get(score.average(*look, **how))
            if place:
                results.append((place, tree))
            return tree

    @functools.cache
    def importance(over: Any) -> Tree:
        with asked(over) as how:
            return score.importance(experiment, compiled, state, alive, dataset, **how)

    return Problem(
        params=jax.device_get(state.params),
        masks=jax.device_get(alive),
        importance=importance,
        average=average,
        module=compiled.module,
        batch_stats=state.batch_stats,
        shape=dataset.shape,
        key=jax.random.key(seed),
        layers=compiled.layers,
        groups=len(dataset.groups),
        minority=minority(experiment, dataset),
        official=experiment.protocol == "official",
        select=scoring.select,
        deficit=scoring.deficit,
        advances=scoring.advances,
        scope=scoring.scope,
        minimum=experiment.min_keep_per_layer,
        # Fake devices of one processor have nothing to gain from dividing its work.
        devices=() if local[0].platform == "cpu" else tuple(local),
    )


def minority(experiment: Experiment, dataset: Dataset) -> tuple[int, ...]:
    """The groups that `scoring.minority` names, or all but the largest of the training split.

    UsageError for a name that is no group, or where all are named.
    """
    names = experiment.scoring.minority
    for name in names:
        if name not in dataset.groups:
            raise UsageError(
                f"scoring.minority: {name!r} is no group: choose from {', '.join(dataset.groups)}"
            )
    if len(set(names)) == len(dataset.groups):
        raise UsageError("scoring.minority: names all groups; leave one out")
    groups = dataset.train.groups
    sizes = np.bincount(groups[groups != NO_GROUP], minlength=len(dataset.groups))
    chosen = [dataset.groups.index(name) for name in names]
    return tuple(sorted(chosen or set(range(len(sizes))) - {int(sizes.argmax())}))


def unsolved(details: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each layer whose fixed point was not found."""
    return [
        f"layer {layer}: fixed point not found in {found['passes']} passes, chosen by greedy steps"
        for layer, found in details.items()
        if not found.get("converged", True)
    ]
