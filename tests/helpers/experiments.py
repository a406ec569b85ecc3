"""One tiny experiment that many tests run, and what a run of it leaves."""

import dataclasses
import json
from functools import cache

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import load, source
from fairgrape_jax.rounds.session import initial_network, open_session
from fairgrape_jax.storage import checkpoint

TINY = Experiment(
    data=source("synthetic", samples=400, groups=3, classes=3, size=8, noise=0.5, seed=1),
    model="cnn",
    methods=("magnitude", "fairgrape"),
    sparsity=0.8,
    keep_per_round=0.5,
    dense=Stage((2, 1), (1e-2, 1e-3)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage((1,), (1e-4,)),
    # The fixed point's program is half of what a run of this size compiles; runner/test_run.py has
    # runs with it.
    scoring=Scoring(fraction=0.5, micro_batch=16, select="greedy"),
    batch=32,
    seeds=(0, 1),
    execution=Execution(devices=1),
)


def with_fields(experiment, **fields):
    """The experiment with other fields, its own or those of its execution."""
    names = {field.name for field in dataclasses.fields(Execution)}
    inner = {name: fields.pop(name) for name in names & fields.keys()}
    execution = dataclasses.replace(experiment.execution, **inner)
    return dataclasses.replace(experiment, execution=execution, **fields)


def stage_files(directory):
    """Each stage's metrics (but for times) and state, by its place in the run."""
    found = {}
    for path in sorted(directory.glob("seed_*/**/metrics.json")):
        record = json.loads(path.read_text())
        for key in ("seconds", "files", "checksum"):  # times, and what is made of them
            record.pop(key)
        state = None
        if (path.parent / "checkpoint").exists():
            state = load_checkpoint(path.parent)
        found[str(path.parent.relative_to(directory))] = (record, state)
    return found


def opened(experiment, dataset, devices=1, seed=0):
    """The session of an experiment on so many devices, and its network before training."""
    session = open_session(experiment, dataset, parallel.local_devices(devices))
    return session, initial_network(session, seed)


@cache
def template():
    """A checkpoint's structure in every run that trains TINY's network with its optimizer."""
    _, network = opened(TINY, load(TINY.data))
    return jax.device_get({"state": network.state, "masks": network.masks})


def load_checkpoint(stage):
    return checkpoint.restore(stage / "checkpoint", template())


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, (record, state) in one.items():
        assert record == other[name][0], name
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other[name][1]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
