"""Checks of a request before anything is written or computed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax import config, masks, metrics, parallel
from fairgrape_jax.config import Experiment, Registered, protocols
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import METHODS, Problem, pruning
from fairgrape_jax.methods.structure_choice import choose_structures
from fairgrape_jax.methods.unit_flops import density_within_flops
from fairgrape_jax.progress import say
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.selection.allocation import ALLOCATIONS, is_global


def check_directory(experiment: Experiment, directory: Path) -> None:
    """UsageError if `directory` holds another experiment's run, or something else.

    Args:
        experiment: what is asked for.
        directory: of the run.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise UsageError(f"{directory}: is a file; give a folder for the run")
    stored = directory / "config.json"
    if not stored.exists():
        if any(directory.iterdir()):
            raise UsageError(f"{directory}: not empty and not a run; give a new folder")
        return
    here, there = (config.identity(e) for e in (experiment, config.load(stored)))
    fingerprints = [values["data"].get("fingerprint", "") for values in (there, here)]
    if fingerprints[0] != fingerprints[1] and all(fingerprints):
        raise UsageError(
            f"{directory}: was begun with other arrays (fingerprint {fingerprints[0][:12]}, "
            f"{fingerprints[1][:12]} here); give the same ones, or another --out"
        )
    for field in here:
        if here[field] != there[field]:
            raise UsageError(
                f"{directory}: belongs to another configuration ({field} is {there[field]} there, "
                f"{here[field]} here); give another --out, or resume it with "
                f"`fairgrape run {directory}`"
            )
    config.check_flags(config.read(stored).get("flags", {}), directory)


def check_registered(
    experiment: Experiment, directory: Path, *, accept_changes: bool = False
) -> list[Registered]:
    """The rows from outside that config.json is to record, compared with those it has.

    Args:
        experiment: what is asked for.
        directory: of the run.
        accept_changes: whether a row may be another one than when the run was begun.

    Raises:
        UsageError: for a row that is missing or, unless that is accepted, has changed.
    """
    path = directory / "config.json"
    if not path.exists():
        return config.used_rows(experiment)
    recorded = config.read(path).get("registered", [])
    return config.check_same(recorded, experiment, directory, accept_changes=accept_changes)


def registered_notes(registered: Sequence[Registered]) -> list[str]:
    """A line for each row from outside of which nobody can tell whether it is the same again.

    Args:
        registered: what config.json records.
    """
    return [
        f"{row['kind']} {row['name']!r} was typed into a session: whether it is the same when the "
        "run goes on cannot be told; register it from a file"
        for row in registered
        if not row.get("sha256") and "distribution" not in row
    ]


def metric_names(registered: Sequence[Registered]) -> tuple[str, ...]:
    """The metrics that the records of a run hold; those that came later are said and left out.

    Args:
        registered: what config.json records of rows from outside.

    Returns:
        Their names; those of this package come first.
    """
    recorded = tuple(row["name"] for row in registered if row["kind"] == "metric")
    for name, origin in metrics.METRICS.origins.items():
        if name not in recorded:
            say(f"note: metric {name!r} of {origin} came after the run was begun, and is left out")
    return (*metrics.METRICS.built_in, *recorded)


def check_same_request(
    experiment: Experiment, dataset: Dataset, registered: Sequence[Registered] = ()
) -> None:
    """UsageError unless all processes were given the same experiment and read the same data.

    Args:
        experiment: what is asked for.
        dataset: what was read.
        registered: the rows from outside that the run has.
    """
    request = json.dumps([config.to_dict(experiment), list(registered)])
    flags = np.frombuffer(json.dumps(config.numeric_flags()).encode(), np.uint8)
    splits = (dataset.train, dataset.validation, dataset.test)
    if not parallel.processes_agree(
        [np.frombuffer(request.encode(), np.uint8), flags, *(split.evidence() for split in splits)]
    ):
        raise UsageError(
            "--distributed: the processes were given different options or read different data; "
            "start all with the same command on the same files"
        )


def check_fit(experiment: Experiment, dataset: Dataset, devices: int) -> None:
    """UsageError if the dataset or the devices do not suit the experiment.

    Args:
        experiment: what is asked for.
        dataset: with which data.
        devices: how many there are, of all processes.
    """
    if experiment.batch % devices:
        raise UsageError(
            f"batch: {experiment.batch} images cannot be cut evenly over {devices} devices; "
            f"give a multiple of {devices}, or --execution.devices"
        )
    if experiment.mixup and experiment.batch // devices % 2:
        raise UsageError(
            f"mixup: a device's {experiment.batch // devices} of {experiment.batch} images are no "
            f"pairs; give a --batch that is a multiple of {2 * devices}, or fewer "
            "--execution.devices"
        )
    if len(dataset.groups) < 2:
        raise UsageError(f"groups: {dataset.groups} is one group; fairness needs two or more")
    select.minority_groups(experiment, dataset)


def notes(experiment: Experiment, platform: str) -> list[str]:
    """What is no error, but should be known before a run begins.

    Args:
        experiment: What is asked for.
        platform: That of the devices.

    Returns:
        A line for each.
    """
    if platform == "cpu" and experiment.execution.micro_batches == "scan":
        return [
            "execution.micro_batches scan: on a CPU loops around convolutions are many times "
            "slower; auto gives the same scores"
        ]
    return []


def check_layers(experiment: Experiment, full: Tree, layers: Sequence[str] = ()) -> None:
    """Check that no method's last density leaves a layer without a weight, as far as is known.

    An allocation that ranks weights tells nothing before the choice is made.

    Args:
        experiment: what is asked for.
        full: masks with everything alive.
        layers: the names of the prunable layers in the order of the network.

    Raises:
        UsageError: with the name of the layer.
    """
    if experiment.scoring.structures != "none":
        return  # `check_structures` looks at these
    for name in experiment.methods:
        of_method = protocols.apply_protocol(experiment, name)
        by_method, minimum = config.row_of(experiment, name).counts, of_method.min_keep_per_layer
        allocation = of_method.scoring.allocation
        if is_global(allocation) and by_method:
            raise UsageError(
                f"{name}: has a count for every layer; give another --scoring.allocation than "
                f"{allocation}"
            )
        if is_global(allocation) or (isinstance(allocation, str) and ALLOCATIONS[allocation].ranks):
            continue
        density = config.densities(of_method)[-1]
        new = Problem(None, full, layers=tuple(layers), minimum=minimum)
        try:
            new = dataclasses.replace(new, allocation=select.allocation_of(of_method, full, layers))
            expected = (by_method or pruning.counts)(new, density)
        except ValueError as error:  # the first layer alone is more than is to be kept
            raise UsageError(f"{name}: scoring.{error}") from error
        for layer, kept in expected.items():
            if not kept:
                raise UsageError(
                    f"layer {layer} keeps none of its weights at density {density:.4g} ({name}), "
                    "and nothing would pass through it; give --min-keep-per-layer 1, or keep more"
                )


def check_structures(session: Session, network: Network) -> None:
    """Where whole channels are pruned, or operations counted: check that there are some channels,
    and that the last density is reached.

    Args:
        session: the run.
        network: before training.

    Raises:
        UsageError: with what the network, the densities or the allocation are lacking.
    """
    experiment = session.experiment
    if experiment.scoring.structures == "none":
        return
    counts = [config.row_of(experiment, name).counts for name in experiment.methods]
    try:
        question = select.make_problem(session, network, seed=experiment.seeds[0])
        last = config.densities(experiment)[-1]
        if None in counts:
            choose_structures(METHODS["magnitude"], question, last)
        for of_method in filter(None, counts):
            flops = question.structures == "flops"
            density = density_within_flops(question, last, of_method) if flops else last
            if empty := [name for name, n in of_method(question, density).items() if not n]:
                raise ValueError(f"layer {empty[0]} keeps none of its weights at {last:.4g}")
    except ValueError as error:
        raise UsageError(f"scoring.structures: {error}") from error


def allocation_notes(experiment: Experiment, full: Tree) -> list[str]:
    """What a table of densities means for the network: layers that it does not name, its density.

    Args:
        experiment: what is asked for.
        full: masks with everything alive.

    Returns:
        A line, or nothing where there is no table.
    """
    table = experiment.scoring.allocation
    if not isinstance(table, dict):
        return []
    sizes = {row["layer"]: row["weights"] for row in masks.sparsity_table(full)}
    if missing := [name for name in sizes if name not in table]:
        return [
            f"scoring.allocation: does not name {', '.join(missing)}; "
            f"{'these layers share' if len(missing) > 1 else 'this layer takes'} what the last "
            "round leaves"
        ]
    density = sum(size * table[name] for name, size in sizes.items()) / sum(sizes.values())
    end = config.densities(experiment)[-1]
    if abs(density - end) < 0.5 / sum(sizes.values()):
        return []
    return [
        f"scoring.allocation: the table keeps {density:.6g} of the network, and the last round "
        f"{end:.6g}; its layers then keep powers of the table's densities (docs/method.md)"
    ]
