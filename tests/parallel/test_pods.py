"""A run of many processes of which some are killed: all stop, and it goes on, on half too."""

import shutil
import signal
import time

import pytest

from fairgrape_jax.cli import run as cli
from tests.helpers import flat_store
from tests.helpers.compare_runs import STAGES, assert_same_bits, check_resumed
from tests.helpers.processes import MAIN, SAVING, start

pytestmark = pytest.mark.multiprocess
LIMIT = 900  # seconds for a run
# Ours, where a process was waiting for the others; jax's, where the heartbeat was missed before.
LINES = (
    "fairgrape: stopped: this process failed, or another one did (see its output)",
    "This most likely indicates that another task died",
)
SIZES = [4, pytest.param(16, marks=pytest.mark.slow)]


def heartbeat(processes):
    """Seconds of silence that are borne: many processes on few cores are silent for long."""
    return 10 * processes


def finish(folder, out, processes, devices=1):
    """The run to its end on so many processes."""
    cluster = start(folder, out, devices=(devices,) * processes, heartbeat=heartbeat(processes))
    assert cluster.wait(LIMIT) == [0] * processes, cluster.said()
    return cluster


def kill_one(cluster, dead):
    """Kill a process; every other one ends within the limit, failed, with a line."""
    began = time.monotonic()
    cluster.processes[dead].send_signal(signal.SIGKILL)
    codes = cluster.wait(2 * heartbeat(len(cluster.processes)) + 20)
    print(f"the others of {len(codes)} stopped {time.monotonic() - began:.1f} s after the kill")
    assert codes.pop(dead) == -signal.SIGKILL
    assert not {0, None} & set(codes), cluster.said()
    for i, log in enumerate(cluster.logs):
        if i != dead:
            assert any(line in log.read_text() for line in LINES), cluster.said()


@pytest.mark.parametrize("processes", SIZES)
def test_a_run_of_many_processes_survives_two_that_are_killed(tmp_path, processes):
    """One in the middle of training, one amid the rounds; then as if it had not been."""
    whole, run, half = (tmp_path / name for name in ("whole", "run", "half"))
    finish(tmp_path, whole, processes)
    experiment = cli.load(tmp_path / "small.py")

    cluster = start(
        tmp_path, run, main=SAVING, devices=(1,) * processes, heartbeat=heartbeat(processes)
    )
    saved = run / "seed_0/dense/partial"
    cluster.wait_for(lambda _: any(saved.glob("*/digests.json")), LIMIT)
    kill_one(cluster, processes // 2)
    assert not (run / "seed_0/dense/metrics.json").exists()

    cluster = start(tmp_path, run, devices=(1,) * processes, heartbeat=heartbeat(processes))
    cluster.wait_for(lambda said: "seed 0 dense" in said, LIMIT)
    assert "going on after epoch" in cluster.said()
    kill_one(cluster, processes - 1)
    assert not (run / "seed_0" / STAGES[-1] / "metrics.json").exists()

    shutil.copytree(run, half)
    finish(tmp_path, run, processes)
    assert_same_bits(run, whole, experiment)
    finish(tmp_path, half, processes // 2, devices=2)
    check_resumed(half, whole, 1, experiment)


def test_two_processes_share_a_run_on_an_object_store(tmp_path, monkeypatch):
    """One is killed amid the rounds, with the lock held; the same command goes on."""
    bucket = flat_store.bucket(tmp_path / "objects", monkeypatch)
    whole, run = bucket / "whole", bucket / "run"
    both = {"main": f"from tests.helpers import flat_store; {MAIN}", "heartbeat": heartbeat(4)}
    cluster = start(tmp_path, whole, **both)
    assert cluster.wait(LIMIT) == [0, 0], cluster.said()
    cluster = start(tmp_path, run, **both)
    cluster.wait_for(lambda said: "seed 0 dense" in said, LIMIT)
    kill_one(cluster, 0)
    cluster = start(tmp_path, run, **both)
    assert cluster.wait(LIMIT) == [0, 0], cluster.said()
    assert_same_bits(run, whole, cli.load(tmp_path / "small.py"))
