"""One round's choice of weights: the problem as a method sees it, its masks, and their checks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fairgrape_jax import config, masks, parallel, passes
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.dataset import NO_GROUP, Dataset
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import Method, Problem, prune, pruning
from fairgrape_jax.methods.structure_choice import (
    choose_structures,
    find_in_round,
    structure_problem,
)
from fairgrape_jax.methods.tiles import tile_masks, tile_problem
from fairgrape_jax.methods.unit_flops import density_within_flops
from fairgrape_jax.passes import Fold
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.scoring.statistics import Statistic
from fairgrape_jax.selection import Allocation, allocate
from fairgrape_jax.selection.counts import joined, members
from fairgrape_jax.selection.patterns import NofM, Tiles, most_in_block
from fairgrape_jax.structures import zero_masks
from fairgrape_jax.structures.cost import Counter

# How the choice was made in each layer, or in the network, by name; it goes into the record.
Details = dict[str, dict[str, Any]]


def select(
    session: Session,
    network: Network,
    method: str,
    *,
    density: float,
    seed: int,
    dense: Network | None = None,
    fold: Fold = passes.fold,
    progress: float = 0.0,
    carried: Tree = None,
) -> tuple[Tree, Details]:
    """The masks of the next round by a method.

    Every process selects from the same scores, and all go on with the masks of process 0: they are
    the same by construction, not only where all processors round alike.

    Args:
        session: the run; the groups of its dataset are those of the scores.
        network: at the start of the round.
        method: of the experiment.
        density: of the masks; where structures are pruned, of what `scoring.structures` counts.
        seed: of the scoring sample, and of the round's key.
        dense: the network before pruning, for a loss that looks at it.
        fold: how the passes over the sample are made.
        progress: how far the rounds are, 0 for the first one.
        carried: what the ingredients of the method's preparation carried.

    Returns:
        The masks in NumPy arrays, checked: nested, of the exact number in every layer or in the
        network, and with weights in every layer; and how they were chosen.

    Raises:
        TrainingError: if a layer is left without weights.
    """
    row, alive = config.row_of(session.experiment, method), jax.device_get(network.masks)
    if not row.nested:
        network = open_masks(session, network)
    question = make_problem(session, network, seed=seed, dense=dense, fold=fold)
    question = dataclasses.replace(question, alive=alive, progress=progress, carried=carried)
    if question.structures != "none" and row.counts is not None:
        if question.structures == "flops":
            density = density_within_flops(question, density, row.counts)
        question = dataclasses.replace(question, structures="none")
    choose = prune if question.structures == "none" else choose_structures
    chosen = parallel.broadcast_from_process_0(choose(row, question, density))
    check_masks(chosen, question, row, method, density)
    return chosen, question.details


def open_masks(session: Session, network: Network) -> Network:
    """The network with every weight alive.

    Args:
        session: the run.
        network: on the devices.
    """
    full = jax.tree.map(lambda mask: np.ones(mask.shape, bool), network.masks)
    return Network(network.state, parallel.replicate(full, session.devices))


def check_masks(chosen: Tree, question: Problem, row: Method, name: str, density: float) -> None:
    """RuntimeError or ValueError for masks that are not what was asked for, TrainingError for a
    layer without weights.

    Args:
        chosen: the masks.
        question: the round as the method saw it.
        row: the method.
        name: what it is called.
        density: of the masks.
    """
    masks.check_nested(chosen, question.masks)
    if question.structures != "none":
        check_structures(chosen, question, name, density)
        return
    counted, units = chosen, question
    if isinstance(question.pattern, Tiles):
        counted, units = tile_masks(question, chosen), tile_problem(question)
    leaves = jax.tree.leaves(counted)
    expected = (row.counts or pruning.counts)(units, density)
    for layer, part in members(counted, question.allocation).items():
        if (kept := int(joined(leaves, part).sum())) != expected[layer]:
            raise RuntimeError(f"{name}: {layer} keeps {kept} weights, not {expected[layer]}")
    check_pattern(chosen, question, name, density)
    if empty := [row["layer"] for row in masks.sparsity_table(chosen) if not row["alive"]]:
        raise TrainingError(
            f"{name}: layer {empty[0]} is left without weights at density {density:.4g}, and "
            "nothing passes through it; complete rounds are kept. --min-keep-per-layer 1 avoids it"
        )


def check_structures(chosen: Tree, question: Problem, name: str, density: float) -> None:
    """RuntimeError for masks that leave more than the density lets, or parts of structures.

    Args:
        chosen: the masks.
        question: the round as the method saw it.
        name: of the method.
        density: of all weights, or of the dense network's operations.
    """
    structures = find_in_round(question)
    kept = structure_problem(dataclasses.replace(question, masks=chosen), structures).masks
    whole = zero_masks(structures, question.masks, kept)
    if not jax.tree.all(jax.tree.map(np.array_equal, whole, chosen)):
        raise RuntimeError(f"{name}: masks leave parts of structures")
    count, of = Counter(structures), question.structures
    left = getattr(count(kept), of) / getattr(count(structures.full_masks()), of)
    if left > density * (1 + 1e-6):
        raise RuntimeError(f"{name}: {left:.6g} of the {of} are left, not {density:.6g}")


def check_pattern(chosen: Tree, question: Problem, name: str, density: float) -> None:
    """RuntimeError for blocks of N:M that keep more than they may at the density.

    Args:
        chosen: the masks.
        question: the round as the method saw it.
        name: of the method.
        density: of the masks.
    """
    pattern = question.pattern
    if not isinstance(pattern, NofM) or density > pattern.kept / pattern.of:
        return
    if (most := most_in_block(pattern, chosen)) > pattern.kept:
        raise RuntimeError(f"{name}: a block of {pattern} keeps {most} weights")


def make_problem(
    session: Session,
    network: Network,
    *,
    seed: int,
    dense: Network | None = None,
    fold: Fold = passes.fold,
) -> Problem:
    """A round as a method sees it; an average over samples is made when it is asked for.

    Arguments as for `select`.

    Args:
        session: as for `select`.
        network: likewise.
        seed: likewise.
        dense: likewise.
        fold: likewise.
    """
    experiment, devices = session.experiment, session.devices
    options: dict[str, Any] = {"seed": seed, "dense": dense, "fold": fold}

    def average(
        statistic: Statistic, over: score.Over = "all", extra: Tree = None, params: Tree = None
    ) -> Tree:
        scored = network
        if params is not None:
            placed = parallel.replicate(params, devices)
            scored = Network(network.state._replace(params=placed), network.masks)
        mean = score.average(session, scored, statistic, over=over, extra=extra, **options)
        return jax.device_get(mean)

    @functools.cache
    def importance(over: Any) -> Tree:
        return score.importance(session, network, over=over, **options)

    scoring = experiment.scoring
    return Problem(
        params=jax.device_get(network.state.params),
        masks=jax.device_get(network.masks),
        importance=importance,
        average=average,
        module=session.steps.module,
        batch_stats=network.state.batch_stats,
        shape=session.dataset.shape,
        key=jax.random.key(seed),
        layers=session.steps.layers,
        groups=len(session.dataset.groups),
        minority=minority_groups(experiment, session.dataset),
        official=experiment.protocol == "official",
        kernel_patterns=experiment.approach.patterns,
        select=scoring.select,
        deficit=scoring.deficit,
        advances=scoring.advances,
        allocation=allocation_of(experiment, network.masks, session.steps.layers),
        minimum=experiment.min_keep_per_layer,
        pattern=scoring.n_of_m or scoring.tiles,
        structures=scoring.structures,
        multiple=scoring.structure_multiple,
        # Fake devices of one processor have nothing to gain from dividing its work.
        devices=() if devices[0].platform == "cpu" else tuple(devices),
    )


def allocation_of(experiment: Experiment, full: Tree, layers: Sequence[str] = ()) -> Allocation:
    """The allocation of every round: a table of some layers with those that it leaves open.

    They share one rate after the last round, and all fall together on the way there; were the
    table's densities kept to from the first round on, a large layer would leave no room.

    Args:
        experiment: as the method is put through it.
        full: masks of the network, whatever is alive.
        layers: the names of the prunable layers in the order of the network.

    Raises:
        ValueError: for a table that does not suit the network, or its last density.
    """
    table = experiment.scoring.allocation
    if not isinstance(table, dict):
        return table
    everything = jax.tree.map(lambda mask: np.ones(mask.shape, bool), full)
    sizes = {row["layer"]: row["weights"] for row in masks.sparsity_table(everything)}
    options: dict[str, Any] = {"minimum": experiment.min_keep_per_layer, "order": layers}
    last = config.densities(experiment)[-1]
    if sizes.keys() <= table.keys():
        return table
    counts = allocate(everything, last, table, **options)
    return {name: count / sizes[name] for name, count in counts.items()}


def minority_groups(experiment: Experiment, dataset: Dataset) -> tuple[int, ...]:
    """The groups that `scoring.minority` names, or all but the largest of the training split.

    Args:
        experiment: what is done.
        dataset: with which data.

    Raises:
        UsageError: for a name that is no group, or where all are named.
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


def describe_unsolved(details: Details) -> list[str]:
    """A line for each layer whose fixed point was not found.

    Args:
        details: how the choice was made in each layer.
    """
    return [
        f"layer {layer}: fixed point not found in {info['passes']} passes, chosen by greedy steps"
        for layer, info in details.items()
        if not info.get("converged", True)
    ]
