"""A number that is not finite, written down so that it can be looked at, and made again.

STAGE/not_finite: repro.json says what, where and from which samples; checkpoint/ holds the network
before, as large as that of a round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from fairgrape_jax import config, data, masks, parallel, storage
from fairgrape_jax.config import protocols
from fairgrape_jax.data import augment, batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.rounds import cluster, score, steps
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.scoring import statistics
from fairgrape_jax.storage import checkpoint
from fairgrape_jax.storage.checksums import read_checksummed, write_checksummed
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFiniteError
from fairgrape_jax.training.step import State

NAMED = 64  # samples of which the file holds the names too


def write(stage: Path, error: NotFiniteError, alive: Tree, seed: int, dataset: Dataset) -> None:
    """Write STAGE/not_finite; every process takes part, process 0 writes."""
    directory = stage / "not_finite"
    try:
        checkpoint.save(directory / "checkpoint", {"state": error.state, "masks": alive})
    except OSError as failed:  # what is not finite is told in any case
        return say(f"note: {storage.describe_write_error(failed)}")
    error.file = directory
    if not hosts.is_process_0():
        return
    names = getattr(dataset.train.images, "names", None)
    place = error.place | {"seed_of_run": seed, "stage": stage.name, "method": stage.parent.name}
    if names is not None and place["kind"] != "evaluation":
        place["names"] = [names[i].decode() for i in place["ids"][:NAMED]]
    write_checksummed(directory / "repro.json", {"not_finite": error.what} | place)


@contextlib.contextmanager
def written(stage: Path, alive: Tree, seed: int, dataset: Dataset) -> Iterator[None]:
    """Write down a number of the body that is not finite."""
    try:
        yield
    except NotFiniteError as error:
        write(stage, error, alive, seed, dataset)
        raise


@dataclasses.dataclass(frozen=True)
class Case:
    """What a repro file holds, and the run around it: the network on the devices, the samples.

    dense: the dense network, for a loss that looks at it; known: what repro.json says.
    """

    experiment: config.Experiment
    compiled: Steps
    dataset: Dataset
    state: State
    alive: Tree
    dense: State | None
    known: dict[str, Any]


def replay(directory: Path) -> bool:
    """Do again what gave a number that is not finite, and say what is seen; whether it is again.

    directory: a STAGE/not_finite of a run. UsageError if it is none, or was altered.
    """
    case = read(directory)
    known = case.known
    place = f"{known['where']}, {known['kind']} of {known['stage']}"
    say(f"recorded: {finite.said(known['not_finite'])} not finite {place}")
    try:
        {"step": _step, "scoring": _score, "evaluation": _evaluate}[known["kind"]](case)
    except NotFiniteError as error:
        say(f"again:    {finite.said(error.what)} not finite {error.place['where']}")
        for what in error.what:
            say(f"  {what}")
        return True
    say("again:    every number is finite (another machine or number of devices rounds otherwise)")
    return False


def read(directory: Path) -> Case:
    """The case of a STAGE/not_finite. UsageError if it is none, or was altered."""
    known = read_checksummed(directory / "repro.json")
    if known is None:
        raise UsageError(f"{directory}: holds no repro.json, or one that was altered")
    root = next((p for p in directory.absolute().parents if (p / "config.json").is_file()), None)
    if root is None:
        raise UsageError(f"{directory}: is not in the directory of a run (no config.json above)")
    if bad := checkpoint.damaged_files(directory / "checkpoint"):
        raise UsageError(f"{directory / 'checkpoint' / bad[0]}: damaged or gone")
    base = config.load(root / "config.json")
    count = (
        json.loads((root / "config.json").read_text(encoding="utf-8"))
        .get("devices", {})
        .get("count", 1)
    )
    devices = parallel.local_devices(count if count <= len(jax.local_devices()) else 1)
    if len(devices) != count:
        say(f"note: on {len(devices)} device, not on the {count} of the run: rounding differs")
    dataset = data.load(base.data)
    compiled = steps.build(base, dataset, devices)
    blank = steps.initial_state(base, compiled, dataset, base.seeds[0])
    like = {"state": blank, "masks": steps.initial_masks(compiled, blank)}

    def restored(place: Path) -> Any:
        return parallel.replicate(checkpoint.restore(place / "checkpoint", like), devices)

    found, seed, dense = restored(directory), known["seed_of_run"], None
    experiment, seeds = base, root / f"seed_{seed}"
    if known["stage"] != "dense":
        experiment = protocols.of_method(base, known["method"])
        if base.remedy.teaches or base.remedy.scores:
            dense = restored(seeds / "dense")["state"]
        if known["kind"] == "scoring" and config.clusters(experiment.scoring):
            assigned = cluster.read(seeds / "clusters.npz", len(dataset.train))
            dataset = cluster.regrouped(dataset, assigned, config.clusters(experiment.scoring))
    return Case(experiment, compiled, dataset, found["state"], found["masks"], dense, known)


def _step(case: Case) -> None:
    """The one training step; NotFiniteError with what is not."""
    known, compiled, batch = case.known, case.compiled, case.experiment.batch
    order = known["seed_of_run"], known["epoch"], known["step_in_epoch"]
    samples = next(batches.train_batches(case.dataset.train, batch, *order))
    for line in _forward(case, samples):
        say(line)
    step = compiled.train
    if case.dense is not None:
        step = steps.retraining(case.experiment, compiled, case.dense)
    placed = parallel.split_batch(samples, compiled.devices)
    state, seen = step(case.state, case.alive, placed, np.float32(known["rate"]))
    if not np.isfinite(seen.loss):
        error = finite.in_step(state, seen, known)
        error.what = finite.bad_parts(error.state, error.finite, compiled.parameters)
        raise error


def _score(case: Case) -> None:
    """The importance of the round's scoring sample; NotFiniteError with the micro-batch."""
    over: Any = case.known["over"]
    over = over if isinstance(over, str) else tuple(over)
    for kind in (statistics.SQUARES, statistics.GRADIENT):
        given = case.experiment, case.compiled, case.state, case.alive, case.dataset, kind
        score.average(*given, over=over, seed=case.known["seed"], dense=case.dense)


def _evaluate(case: Case) -> None:
    """The evaluation of both splits; NotFiniteError with the samples."""
    for split in (case.dataset.validation, case.dataset.test):
        steps.predict(case.experiment, case.compiled, case.state, case.alive, split)


def _forward(case: Case, samples: dict[str, np.ndarray]) -> list[str]:
    """What the forward pass of a batch says: the first module that is not finite, and the samples.

    On one device, outside of the step; the outputs of modules are looked at in their order.
    """
    state, alive = jax.device_get((case.state, case.alive))
    images: Any = samples["images"]
    if alter := augment.AUGMENTATIONS[case.experiment.augmentation]:
        key = jax.random.wrap_key_data(state.key)
        images = augment.augmented(alter, key, state.epoch, jnp.asarray(samples["ids"]), images)
    images = augment.normalise(images, case.dataset.mean, case.dataset.std)
    module = case.compiled.module.clone(axis_name=None)
    network = {"params": masks.apply_masks(alive, state.params), "batch_stats": state.batch_stats}
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
