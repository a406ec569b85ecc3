"""A number that is not finite, written down so that it can be looked at, and made again.

STAGE/not_finite: repro.json says what, where and from which samples; checkpoint/ holds the network
before, as large as that of a round.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from fairgrape_jax import (
    checkpoint,
    clusters,
    config,
    data,
    finite,
    hosts,
    integrity,
    masks,
    measure,
    parallel,
    protocols,
    statistic,
    steps,
    storage,
)
from fairgrape_jax.data import augment, pipeline
from fairgrape_jax.data.types import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.finite import NotFiniteError
from fairgrape_jax.masks import Tree
from fairgrape_jax.progress import say
from fairgrape_jax.steps import Steps
from fairgrape_jax.train import State

NAMED = 64  # samples of which the file holds the names too


def write(stage: Path, error: NotFiniteError, alive: Tree, seed: int, dataset: Dataset) -> None:
    """Write STAGE/not_finite; every process takes part, process 0 writes."""
    directory = stage / "not_finite"
    try:
        checkpoint.save(directory / "checkpoint", {"state": error.state, "masks": alive})
    except OSError as failed:  # what is not finite is told in any case
        return say(f"note: {storage.said(failed)}")
    error.file = directory
    if not hosts.first():
        return
    names = getattr(dataset.train.images, "names", None)
    place = error.place | {"seed_of_run": seed, "stage": stage.name, "method": stage.parent.name}
    if names is not None and place["kind"] != "evaluation":
        place["names"] = [names[i].decode() for i in place["ids"][:NAMED]]
    integrity.write_json(directory / "repro.json", {"not_finite": error.what} | place)


@contextlib.contextmanager
def written(stage: Path, alive: Tree, seed: int, dataset: Dataset) -> Iterator[None]:
    """Write down a number of the body that is not finite."""
    try:
        yield
    except NotFiniteError as error:
        write(stage, error, alive, seed, dataset)
        raise


def replay(directory: Path) -> bool:
    """Do again what gave a number that is not finite, and say what is seen; whether it is again.

    directory: a STAGE/not_finite of a run. UsageError if it is none.
    """
    root = next((p for p in directory.absolute().parents if (p / "config.json").is_file()), None)
    try:
        known = json.loads((directory / "repro.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory}: holds no repro.json ({error})") from error
    if root is None:
        raise UsageError(f"{directory}: is not in the directory of a run (no config.json above)")
    base = config.load(root / "config.json")
    count = json.loads((root / "config.json").read_text())["devices"]["count"]
    devices = parallel.local_devices(count if count <= len(jax.local_devices()) else 1)
    if len(devices) != count:
        say(f"note: on {len(devices)} device, not on the {count} of the run: rounding differs")
    dataset = data.load(base.data)
    compiled = steps.build(base, dataset, devices)
    seed, method = known["seed_of_run"], known["method"]
    experiment = base if known["stage"] == "dense" else protocols.of_method(base, method)
    blank = steps.initial_state(base, compiled, dataset, base.seeds[0])
    like = {"state": blank, "masks": steps.initial_masks(compiled, blank)}
    found = checkpoint.restore(directory / "checkpoint", like)
    state, alive = (parallel.replicate(found[name], devices) for name in ("state", "masks"))
    place = f"{known['where']}, {known['kind']} of {known['stage']}"
    say(f"recorded: {finite.said(known['not_finite'])} not finite {place}")
    needs_dense = base.remedy.teaches or base.remedy.scores
    dense = None
    if needs_dense and known["stage"] != "dense":
        whole = root / f"seed_{seed}" / "dense" / "checkpoint"
        dense = parallel.replicate(checkpoint.restore(whole, like)["state"], devices)
    try:
        if known["kind"] == "step":
            _step(experiment, compiled, dataset, found, state, alive, dense, known)
        elif known["kind"] == "scoring":
            groups = dataset
            if config.clusters(experiment.scoring):
                assigned = root / f"seed_{seed}" / "clusters.npz"
                groups = clusters.scored_by(experiment, compiled, dataset, state, assigned, seed)
            _score(experiment, compiled, groups, state, alive, dense, known)
        else:
            for split in (dataset.validation, dataset.test):
                steps.predict(experiment, compiled, state, alive, split)
    except NotFiniteError as error:
        say(f"again:    {finite.said(error.what)} not finite {error.place['where']}")
        for what in error.what:
            say(f"  {what}")
        return True
    say("again:    every number is finite (another machine or number of devices rounds otherwise)")
    return False


def _step(
    experiment: config.Experiment,
    compiled: Steps,
    dataset: Dataset,
    found: Any,
    state: State,
    alive: Tree,
    dense: State | None,
    known: dict[str, Any],
) -> None:
    """The one training step; NotFiniteError with what is not."""
    order = known["seed_of_run"], known["epoch"], known["step_in_epoch"]
    samples = next(pipeline.train_batches(dataset.train, experiment.batch, *order))
    for line in _forward(experiment, compiled, dataset, found, samples):
        say(line)
    step = compiled.train if dense is None else steps.retraining(experiment, compiled, dense)
    batch = parallel.split_batch(samples, compiled.devices)
    state, seen = step(state, alive, batch, np.float32(known["rate"]))
    if not np.isfinite(seen.loss):
        error = finite.in_step(state, seen, known)
        error.what = finite.bad_parts(error.state, error.finite, compiled.parameters)
        raise error


def _score(
    experiment: config.Experiment,
    compiled: Steps,
    dataset: Dataset,
    state: State,
    alive: Tree,
    dense: State | None,
    known: dict[str, Any],
) -> None:
    """The importance of the round's scoring sample; NotFiniteError with the micro-batch."""
    over: Any = known["over"] if isinstance(known["over"], str) else tuple(known["over"])
    for kind in (statistic.SQUARES, statistic.GRADIENT):
        given = experiment, compiled, state, alive, dataset, kind
        measure.average(*given, over=over, seed=known["seed"], dense=dense)


def _forward(
    experiment: config.Experiment,
    compiled: Steps,
    dataset: Dataset,
    found: Any,
    samples: dict[str, np.ndarray],
) -> list[str]:
    """What the forward pass of a batch says: the first module that is not finite, and the samples.

    On one device, outside of the step; the outputs of modules are looked at in their order.
    """
    state = found["state"]
    images: Any = samples["images"]
    if alter := augment.AUGMENTATIONS[experiment.augmentation]:
        key = jax.random.wrap_key_data(state.key)
        images = augment.augmented(alter, key, state.epoch, jnp.asarray(samples["ids"]), images)
    images = augment.normalise(images, dataset.mean, dataset.std)
    module = compiled.module.clone(axis_name=None)
    network = {"params": masks.apply_masks(found["masks"], state.params)}
    network |= {"batch_stats": state.batch_stats}
    lines = []
    captured: Any = module.apply(
        network,
        images,
        train=True,
        capture_intermediates=True,
        mutable=["batch_stats", "intermediates"],
        rngs={"dropout": jax.random.key(0)},
    )
    outputs = flatten_dict(captured[1]["intermediates"], sep="/")
    bad = [name for name, value in outputs.items() if not np.isfinite(value[0]).all()]
    if bad:
        lines.append(f"forward:  first in the output of {bad[0].removesuffix('/__call__')}")
    logits: Any = module.apply(network, images, train=False)
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(rows):
        ids = samples["ids"][rows].tolist()
        lines.append(f"forward:  outputs of {len(rows)} samples, alone: {ids[:8]}")
    return lines
