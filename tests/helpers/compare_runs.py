"""Two runs of processes.py compared: bit for bit, or as far as a topology allows."""

import json
import shutil

import jax
import numpy as np

from fairgrape_jax import masks
from fairgrape_jax.data import load
from fairgrape_jax.storage import checkpoint
from tests.helpers.experiments import opened

STAGES = ["dense", "fairgrape/round_01", "fairgrape/round_02"]


def template(experiment):
    _, network = opened(experiment, load(experiment.data))
    return jax.device_get({"state": network.state, "masks": network.masks})


def stage(run, name, like):
    """A stage's record (but for times), checkpoint, masks and predictions."""
    directory = run / "seed_0" / name
    record = json.loads((directory / "metrics.json").read_text())
    for key in ("seconds", "files", "checksum"):  # times, and what is made of them
        record.pop(key)
    return (
        record,
        checkpoint.restore(directory / "checkpoint", like),
        checkpoint.load_masks(directory / "masks.npz"),
        (directory / "predictions.csv").read_text(),
    )


def assert_same_bits(run, other, experiment):
    like = template(experiment)
    for name in STAGES:
        mine, theirs = stage(run, name, like), stage(other, name, like)
        assert mine[0] == theirs[0], name
        assert mine[3] == theirs[3], name
        for a, b in zip(jax.tree.leaves(mine[1:3]), jax.tree.leaves(theirs[1:3]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def check_masks(found, expected):
    """At most max(2, 1e-5 n) of n weights differ."""
    assert found.keys() == expected.keys()
    for layer, mask in expected.items():
        assert np.count_nonzero(found[layer] != mask) <= max(2, 1e-5 * mask.size), layer


def keep_until(run, copy, stages):
    """A copy of a run in which only the first `stages` stages are complete."""
    shutil.copytree(run, copy)
    for name in STAGES[stages:]:
        shutil.rmtree(copy / "seed_0" / name)


def check_resumed(run, origin, stages, experiment):
    """What was complete is untouched; the rest begins with the restored parameters, bit for bit."""
    like = template(experiment)
    for name in STAGES[:stages]:
        (before, _, _, _), (after, _, _, _) = stage(origin, name, like), stage(run, name, like)
        assert before == after
    last = stage(run, STAGES[stages - 1], like)[1]
    following = stage(run, STAGES[stages], like)
    check_masks(following[2], stage(origin, STAGES[stages], like)[2])
    if not following[0]["history"]:  # not trained: the restored parameters, masked
        expected = masks.apply_masks(following[1]["masks"], last["state"].params)
        params = following[1]["state"].params
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)
