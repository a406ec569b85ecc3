"""Write down a number that is not finite, and make it again.

STAGE/not_finite: repro.json says what, where and from which samples; checkpoint/ holds the network
before, as large as that of a round.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from fairgrape_jax import config, data, parallel, passes, storage
from fairgrape_jax.data import augment, batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.remedies import active
from fairgrape_jax.rounds import cluster, ingredients, score
from fairgrape_jax.rounds.ingredients import (
    APPROACH,
    NOBODY,
    TakingPart,
    Target,
    approach_ingredients,
)
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.rounds.saves import carried_part
from fairgrape_jax.rounds.session import (
    Network,
    Session,
    initial_network,
    open_session,
    place_on_devices,
)
from fairgrape_jax.scoring import statistics
from fairgrape_jax.storage import checkpoint, clusters
from fairgrape_jax.storage.checksums import Record, read_checksummed, write_checksummed
from fairgrape_jax.systems.quantised import with_quantisers
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError
from fairgrape_jax.training.state import Carry

NAMED = 64  # samples of which the file holds the names too


def write(
    stage: Path,
    record: NotFinite,
    *,
    masks: Tree,
    seed: int,
    dataset: Dataset,
    quantised: bool = False,
) -> Path | None:
    """Write STAGE/not_finite; every process takes part, process 0 writes.

    Args:
        stage: the directory of a stage of a run.
        record: what is not finite.
        masks: of the network.
        seed: of the run.
        dataset: whose samples the record names.
        quantised: whether the network ran with quantisers, in a step.

    Returns:
        Where it is, None if it cannot be written: what is not finite is reported in any case.
    """
    directory = stage / "not_finite"
    tree = {"state": record.state, "masks": masks} | carried_part(record.carried)
    try:
        checkpoint.save(directory / "checkpoint", tree)
    except OSError as error:
        say(f"note: {storage.describe_write_error(error)}")
        return None
    if not hosts.is_process_0():
        return directory
    content: Record = {
        "not_finite": record.parts,
        "kind": record.kind,
        "where": record.where,
    }
    content |= dict(record.details)
    content |= {"seed_of_run": seed, "stage": stage.name, "method": stage.parent.name}
    if APPROACH in dict(record.carried or {}):
        content["approach"] = True  # the step is of the training before the choice
    if quantised:
        content["quantised"] = True
    names = getattr(dataset.train.images, "names", None)
    if names is not None and record.kind != "evaluation":
        content["names"] = [names[i].decode() for i in record.details["ids"][:NAMED]]
    write_checksummed(directory / "repro.json", content)
    return directory


def name_file(error: NotFiniteError, file: Path | None) -> NotFiniteError:
    """The error, with the command that looks at what was written.

    Args:
        error: without the file.
        file: what was written; None for nothing.
    """
    hint = f"; to look at it: fairgrape replay {file}" if file else ""
    return NotFiniteError(error.record, hint)


@contextlib.contextmanager
def write_on_error(stage: Path, *, masks: Tree, seed: int, dataset: Dataset) -> Iterator[None]:
    """Write down a number of the body that is not finite, and name the file in the error.

    Args:
        stage: the directory of a stage of a run.
        masks: of the network.
        seed: of the run.
        dataset: whose samples the record names.
    """
    try:
        yield
    except NotFiniteError as error:
        file = write(stage, error.record, masks=masks, seed=seed, dataset=dataset)
        raise name_file(error, file) from error


@dataclasses.dataclass(frozen=True)
class Case:
    """What a repro file holds, and the run around it.

    Attributes:
        session: the run; the experiment is that of the method, the groups those of its scores.
        network: before the number that was not finite, on the devices.
        dense: the dense network, for a loss that looks at it.
        content: what repro.json holds.
        carried: what ingredients of retraining carried.
        taking: those ingredients.
    """

    session: Session
    network: Network
    dense: Network | None
    content: Record
    carried: Tree = ()
    taking: TakingPart = NOBODY


def replay(directory: Path) -> bool:
    """Do again what gave a number that is not finite, and print what is seen.

    Args:
        directory: a STAGE/not_finite of a run.

    Returns:
        Whether a number is not finite again.

    Raises:
        UsageError: if the directory is none, or was changed.
    """
    case = read_case(directory)
    content = case.content
    where = f"{content['where']}, {content['kind']} of {content['stage']}"
    say(f"recorded: {finite.summary(content['not_finite'])} not finite {where}")
    try:
        {"step": _step, "scoring": _score, "evaluation": _evaluate}[content["kind"]](case)
    except NotFiniteError as error:
        record = error.record
        say(f"again:    {finite.summary(record.parts)} not finite {record.where}")
        for part in record.parts:
            say(f"  {part}")
        return True
    say("again:    every number is finite (another machine or number of devices rounds otherwise)")
    return False


def read_case(directory: Path) -> Case:
    """The case of a STAGE/not_finite. UsageError if it is none, or was changed.

    Args:
        directory: a STAGE/not_finite.
    """
    content = read_checksummed(directory / "repro.json")
    if content is None:
        raise UsageError(f"{directory}: holds no repro.json, or one that was altered")
    root = next((p for p in directory.absolute().parents if (p / "config.json").is_file()), None)
    if root is None:
        raise UsageError(f"{directory}: is not in the directory of a run (no config.json above)")
    if bad := checkpoint.damaged_files(directory / "checkpoint"):
        raise UsageError(f"{directory / 'checkpoint' / bad[0]}: damaged or gone")
    stored = config.read(root / "config.json")
    config.check_flags(stored.get("flags", {}), root)
    experiment = config.load(root / "config.json")
    experiment = dataclasses.replace(experiment, data=arrays.locate(experiment.data, root))
    session = _open(experiment, int(stored["devices"]["count"]))
    dense, taking, carried = None, NOBODY, ()
    seeds = root / f"seed_{content['seed_of_run']}"
    if content["stage"] != "dense":
        session = session.of_method(content["method"])
        method = session.experiment
        taking_part = active(method.remedy)
        if content.get("approach"):
            taking_part = approach_ingredients(method, content["method"])
        remedy, quantised = method.remedy, content.get("quantised")
        if remedy.teaches or remedy.scores or taking_part or quantised:
            dense, _ = _restore(session, seeds / "dense")
        retrains = content["kind"] == "step" and taking_part
        if (content["kind"] == "scoring" or retrains) and method.scoring.groups:
            groups = clusters.read_clusters(seeds / "clusters.npz", len(session.dataset.train))
            dataset = cluster.replace_groups(session.dataset, groups, method.scoring.groups.count)
            session = dataclasses.replace(session, dataset=dataset)
        if retrains:
            like = initial_network(session, experiment.seeds[0])
            full = jax.device_get(like.masks)
            target = Target(1.0, lambda network, fold: full, full)  # for the shapes alone
            taking = TakingPart(taking_part, session, dense, target)
            carried = ingredients.start(taking, like, 1, session.devices, passes.fold)
    network, carried = _restore(session, directory, carried)
    return Case(session, network, dense, content, carried, taking)


def _open(experiment: config.Experiment, count: int) -> Session:
    """The session of a run on `count` devices, on as many if there are."""
    devices = parallel.local_devices(count if count <= len(jax.local_devices()) else 1)
    if len(devices) != count:
        say(f"note: on {len(devices)} device, not on the {count} of the run: rounding differs")
    dataset = data.load(experiment.data, reading=experiment.execution.reading)
    return open_session(experiment, dataset, devices)


def _restore(session: Session, stage: Path, carried: Tree = ()) -> tuple[Network, Tree]:
    like = initial_network(session, session.experiment.seeds[0])
    tree = {"state": like.state, "masks": like.masks} | carried_part(carried)
    tree = checkpoint.restore(stage / "checkpoint", tree)
    network = place_on_devices(session, Network(tree["state"], tree["masks"]))
    return network, parallel.replicate(tree.get("carried", carried), session.devices)


def _step(case: Case) -> None:
    """The one training step; NotFiniteError with what is not."""
    content, session, network = case.content, case.session, case.network
    seed, epoch, start = content["seed_of_run"], content["epoch"], content["step_in_epoch"]
    split, batch = session.dataset.train, session.experiment.batch
    order, held_out = case.taking.order, case.taking.held_out
    samples = next(
        batches.train_batches(
            split, batch, seed, epoch, start=start, order=order, held_out=held_out
        )
    )
    for line in _forward(case, samples):
        say(line)
    step = session.steps.train
    if case.dense is not None:
        remedy = session.experiment.remedy
        step = retraining_step(
            session.steps,
            remedy,
            case.dense.state,
            session.dataset,
            case.taking.active,
            quantised=bool(content.get("quantised")),
        )
    placed = parallel.split_batch(samples, session.devices)
    rate = np.float32(content["rate"])
    carry, report = step(Carry(network.state, carried=case.carried), network.masks, placed, rate)
    if not np.isfinite(report.loss):
        before, flags = finite.to_host(carry.state), np.asarray(report.finite)
        bad = finite.bad_parts(before, flags, session.steps.parameters)
        raise NotFiniteError(NotFinite("step", content["where"], bad, before, content))


def _score(case: Case) -> None:
    """The importance of the round's scoring sample; NotFiniteError with the micro-batch."""
    over: Any = case.content["over"]
    over = over if isinstance(over, str) else tuple(over)
    options: dict[str, Any] = {"over": over, "seed": case.content["seed"], "dense": case.dense}
    for statistic in (statistics.SQUARES, statistics.GRADIENT):
        score.average(case.session, case.network, statistic, **options)


def _evaluate(case: Case) -> None:
    """The evaluation of both splits; NotFiniteError with the samples."""
    predict(case.session, case.network, "validation")
    predict(case.session, case.network, "test")


def _forward(case: Case, samples: dict[str, np.ndarray]) -> list[str]:
    """What the forward pass of a batch shows: the first module that is not finite, the samples.

    On one device, outside of the step; the outputs of modules are looked at in their order.
    """
    session, dataset = case.session, case.session.dataset
    state, alive = jax.device_get((case.network.state, case.network.masks))
    images: Any = samples["images"]
    if alter := augment.AUGMENTATIONS[session.experiment.augmentation]:
        key = jax.random.wrap_key_data(state.key)
        images = augment.augment_batch(alter, key, state.epoch, jnp.asarray(samples["ids"]), images)
    images = augment.normalise(images, dataset.mean, dataset.std)
    module = session.steps.module.clone(axis_name=None)
    if case.content.get("quantised"):
        module = with_quantisers(module, session.experiment.quantise)
    network = {"params": apply_masks(alive, state.params), "batch_stats": state.batch_stats}
    captured: Any = module.apply(
        network,
        images,
        train=True,
        capture_intermediates=True,
        mutable=["batch_stats", "intermediates"],
        rngs={"dropout": jax.random.key(0)},
    )
    lines = []
    for name, outputs in flatten_dict(captured[1]["intermediates"], sep="/").items():
        if not finite.flags(outputs).all():
            lines.append(f"forward:  first in the output of {name.removesuffix('/__call__')}")
            break
    logits: Any = module.apply(network, images, train=False)
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(rows):
        ids = samples["ids"][rows].tolist()
        lines.append(f"forward:  outputs of {len(rows)} samples, alone: {ids[:8]}")
    return lines
