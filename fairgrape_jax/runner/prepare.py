"""Before a run computes: request checked, data read, steps built, RUN/config.json written."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import jax

from fairgrape_jax import config, data, parallel, storage
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.builders import in_memory
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import bar, say
from fairgrape_jax.rounds.session import Session, initial_network, open_session
from fairgrape_jax.runner import disk_space, preflight
from fairgrape_jax.storage import lock
from fairgrape_jax.storage.files import write_json


def prepare(
    experiment: Experiment, directory: Path, accept_changed_plugins: bool = False
) -> Session:
    """Check the request, read the data, build the steps, and write RUN/config.json.

    Args:
        experiment: what to do.
        directory: of the run.
        accept_changed_plugins: whether a row from outside may have changed.
    """
    config.check(experiment)
    devices = parallel.local_devices(experiment.execution.devices)
    # All together before the reading, which may take one host longer than another: connections
    # between hosts are made in the first exchange, and that has a time limit.
    parallel.broadcast_from_process_0(0)
    preflight.check_directory(experiment, directory)
    registered = preflight.check_registered(
        experiment, directory, accept_changes=accept_changed_plugins
    )
    # Not before all have looked: what the first writes would seem to them to be somebody else's.
    parallel.broadcast_from_process_0(0)
    if hosts.is_process_0():
        storage.check_writable(directory)
    with bar("reading") as move:
        source = arrays.locate(experiment.data, directory)
        dataset = data.load(source, move, experiment.execution.reading)
    preflight.check_fit(experiment, dataset, parallel.device_count(devices))
    preflight.check_same_request(experiment, dataset, registered)
    session = open_session(experiment, dataset, devices)
    session = dataclasses.replace(session, metrics=preflight.metric_names(registered))
    for name in experiment.methods:
        session.of_method(name)  # the steps of all remedies: what they are lacking is said now
    network = initial_network(session, experiment.seeds[0])
    preflight.check_layers(experiment, network.masks, session.steps.layers)
    preflight.check_structures(session, network)
    if hosts.is_process_0():
        disk_space.check_room(experiment, directory, (network.state, network.masks), dataset)
    notes = preflight.notes(experiment, devices[0].platform)
    notes += preflight.allocation_notes(experiment, network.masks)
    notes += preflight.registered_notes(registered)
    for line in dict.fromkeys((*dataset.notes, *notes)):
        say(f"note: {line}")
    parallel.broadcast_from_process_0(0)  # no process looks at the directory from here on
    if hosts.is_process_0():
        write_config(experiment, directory, dataset, devices, registered)
        in_memory.keep(source)
        lock.remove_leftovers(directory)
    return session


def write_config(
    experiment: Experiment,
    directory: Path,
    dataset: Dataset,
    devices: list[jax.Device],
    registered: Sequence[config.Registered] = (),
) -> None:
    """RUN/config.json: every field, with versions, flags and machine; kept as it is on resuming,
    but for rows from outside whose change was accepted.

    Args:
        experiment: what is done.
        directory: that of the run.
        dataset: with which data.
        devices: those of this process.
        registered: the rows from outside that the run has.
    """
    path = directory / "config.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("registered", []) != list(registered):
            write_json(path, stored | {"registered": list(registered)})
        return
    directory.mkdir(parents=True, exist_ok=True)
    packages = ("fairgrape-jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    write_json(
        path,
        {
            "format": config.FORMAT,
            "experiment": config.to_dict(experiment),
            "versions": {name: importlib.metadata.version(name) for name in packages}
            | {"python": platform.python_version()},
            "flags": config.numeric_flags(),
            "input": {
                "shape": list(dataset.shape),
                "mean": list(dataset.mean),
                "std": list(dataset.std),
            },
            "registered": list(registered),
            "devices": {
                "kind": devices[0].device_kind,
                "platform": devices[0].platform,
                "count": parallel.device_count(devices),
                "processes": parallel.process_index_and_count()[1],
            },
        },
    )
