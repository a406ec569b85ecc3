"""Runs of real processes over localhost: agreement with one process, topologies, a dead host."""

import csv
import json
import signal
import socket

import jax
import numpy as np
import pytest

from fairgrape_jax import parallel
from fairgrape_jax.cli import run as cli
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.parallel import hosts
from fairgrape_jax.rounds import score
from fairgrape_jax.runner import run as rounds
from tests.helpers import plugins
from tests.helpers.compare_runs import (
    STAGES,
    assert_same_bits,
    check_masks,
    check_resumed,
    keep_until,
    stage,
    template,
)
from tests.helpers.experiments import opened, with_fields
from tests.helpers.processes import EXPERIMENT, MAIN, SAVING, Cluster, free_port, start

# Importance of the same parameters, and who is process 0; run in every process of a cluster.
SCORE = """
import dataclasses
import sys
from pathlib import Path
import jax, numpy as np
from fairgrape_jax import data, parallel
from fairgrape_jax.cli import run as cli
from fairgrape_jax.parallel import hosts
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.session import initial_network, open_session

address, process, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
hosts.join_cluster(hosts.Cluster(address, 2, process, heartbeat=10, start=60))
experiment = cli.load(Path("small.py"))
dataset = data.load(experiment.data)
found = {}
for how, shard in [("pmap", False), ("shard_map", False), ("pmap", True)]:
    execution = dataclasses.replace(experiment.execution, lift=how, shard_groups=shard)
    experiment = dataclasses.replace(experiment, execution=execution)
    session = open_session(experiment, dataset)
    network = initial_network(session, 0)
    for over in ("groups", "all"):
        tree = score.importance(session, network, over=over, seed=5)
        for i, leaf in enumerate(jax.tree.leaves(tree)):
            found[f"{how}.{shard}.{over}.{i}"] = leaf
same = parallel.processes_agree(network.state)
found["agree"] = [same, parallel.processes_agree((network.state, process))]
rows = np.array([[2 * process], [2 * process + 1]])
found["rows"] = parallel.all_gather_rows(rows)
mine = {"a": np.float64(process), "b": np.arange(3) > process, "c": None}
first = parallel.broadcast_from_process_0(mine)
found |= {f"first.{k}": v for k, v in first.items() if k != "c"}
np.savez(out / f"process_{process}.npz", **found)
"""


def run_two(folder, out, *extra):
    cluster = start(folder, out, *extra)
    assert cluster.wait() == [0, 0], cluster.said()
    return cluster


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.py"
    path.write_text(EXPERIMENT)
    return cli.load(path)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A complete run of 2 processes with 2 devices each: its directory, and what was said."""
    folder = tmp_path_factory.mktemp("two")
    cluster = run_two(folder, folder / "run")
    return folder / "run", [log.read_text() for log in cluster.logs]


def run_one(experiment, out, devices):
    """The same run, or the rest of one, in this process."""
    rounds.run(with_fields(experiment, devices=devices), out)


@pytest.fixture(scope="module")
def one(experiment, tmp_path_factory):
    """The same run in one process with 4 devices."""
    out = tmp_path_factory.mktemp("one") / "run"
    run_one(experiment, out, 4)
    return out


def assert_same_predictions(text, expected):
    """Everything but the scores to the letter, and those to rounding."""
    rows, others = (list(csv.DictReader(lines.splitlines())) for lines in (text, expected))
    names = [name for name in rows[0] if "_score" in name]
    assert names
    scores = [[[float(row.pop(name)) for name in names] for row in part] for part in (rows, others)]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-6)
    assert rows == others


@pytest.mark.multiprocess
def test_two_processes_leave_what_one_process_leaves(one, two, experiment):
    """4 devices in 2 processes add up in another order than 4 in one: rounding differs.

    On this small run masks, predictions and metrics are equal all the same.
    """
    like = template(experiment)
    for name in STAGES:
        mine, theirs = stage(two[0], name, like), stage(one, name, like)
        assert mine[0]["test"] == theirs[0]["test"]
        assert mine[0]["layers"] == theirs[0]["layers"]
        for layer, totals in theirs[0].get("importance", {}).items():
            np.testing.assert_allclose(mine[0]["importance"][layer], totals, rtol=1e-3)
        for a, b in zip(mine[0]["history"], theirs[0]["history"], strict=True):
            assert a == pytest.approx(b, rel=1e-4)
        params, expected = mine[1]["state"].params, theirs[1]["state"].params
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
            assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)
        check_masks(mine[2], theirs[2])
        assert_same_predictions(mine[3], theirs[3])
    config = json.loads((two[0] / "config.json").read_text())
    assert config["devices"]["count"] == 4
    assert config["devices"]["processes"] == 2


def test_process_0_alone_speaks_and_writes(two):
    run, (first, second) = two
    assert first.count("complete: ") == 1
    assert "report: " in first
    assert (run / "report.md").exists()
    ours = ("note:", "seed 0", "complete", "report", "fairgrape")
    assert not [line for line in second.splitlines() if line.startswith(ours)]


@pytest.mark.multiprocess
@pytest.mark.parametrize("how", parallel.LIFTS)
def test_two_processes_again_give_the_same_bits(two, tmp_path, experiment, how):
    run_two(tmp_path, tmp_path / "run", "--execution.lift", how)
    assert_same_bits(tmp_path / "run", two[0], experiment)


@pytest.mark.multiprocess
def test_importance_of_the_same_parameters_agrees_over_processes(tmp_path, experiment):
    (tmp_path / "small.py").write_text(EXPERIMENT)
    address = f"localhost:{free_port()}"
    commands = [["-c", SCORE, address, str(i), str(tmp_path)] for i in range(2)]
    cluster = Cluster(tmp_path, commands, (2, 2))
    assert cluster.wait() == [0, 0], cluster.said()
    zero, other = (np.load(tmp_path / f"process_{i}.npz") for i in range(2))
    session, network = opened(experiment, load(experiment.data))
    for over in ("groups", "all"):
        tree = score.importance(session, network, over=over, seed=5)
        for i, expected in enumerate(jax.tree.leaves(tree)):
            for how in ("pmap.False", "shard_map.False", "pmap.True"):  # and whether sharded
                found = zero[f"{how}.{over}.{i}"]
                np.testing.assert_array_equal(found, other[f"{how}.{over}.{i}"])
                assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)
    for process in (zero, other):  # what process 0 had, dtypes too
        np.testing.assert_array_equal(process["agree"], [True, False])
        np.testing.assert_array_equal(process["rows"], np.arange(4)[:, None])
        assert process["first.a"] == 0
        assert process["first.a"].dtype == np.float64
        np.testing.assert_array_equal(process["first.b"], [False, True, True])


@pytest.mark.multiprocess
@pytest.mark.parametrize("devices", [1, 4, 8])
def test_a_run_of_two_processes_goes_on_in_one(two, tmp_path, experiment, devices):
    keep_until(two[0], tmp_path / "run", 1)
    run_one(experiment, tmp_path / "run", devices)
    check_resumed(tmp_path / "run", two[0], 1, experiment)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_run_on_4_devices_goes_on_on_others(one, tmp_path, experiment, devices):
    keep_until(one, tmp_path / "run", 1)
    run_one(experiment, tmp_path / "run", devices)
    check_resumed(tmp_path / "run", one, 1, experiment)


@pytest.mark.multiprocess
@pytest.mark.parametrize("devices", [1, 4, 8])
def test_a_run_of_one_process_goes_on_in_two(tmp_path, experiment, devices):
    run_one(experiment, tmp_path / "whole", devices)
    keep_until(tmp_path / "whole", tmp_path / "run", 1)
    cluster = run_two(tmp_path, tmp_path / "run")
    assert "seed 0 dense" not in cluster.logs[0].read_text()
    check_resumed(tmp_path / "run", tmp_path / "whole", 1, experiment)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("dead", "main"),
    [(0, MAIN), (1, MAIN), (1, SAVING)],
    ids=["process 0", "process 1", "process 1 in the middle of a stage"],
)
def test_when_a_host_dies_the_other_stops_and_the_same_command_goes_on(
    two, tmp_path, experiment, dead, main
):
    """Killed after the dense training, or in the middle of it, after an epoch was saved."""
    cluster = start(tmp_path, tmp_path / "run", main=main)
    if main == MAIN:
        cluster.wait_for(lambda said: "seed 0 dense" in said)
    else:
        saved = tmp_path / "run/seed_0/dense/partial"
        cluster.wait_for(lambda _: any(saved.glob("*/digests.json")))  # whole
    cluster.processes[dead].send_signal(signal.SIGKILL)
    codes = cluster.wait(60)
    assert codes[dead] == -signal.SIGKILL
    assert codes[1 - dead] not in (0, None), cluster.said()
    assert not (tmp_path / "run/seed_0" / STAGES[-1] / "metrics.json").exists()
    again = run_two(tmp_path, tmp_path / "run")
    assert ("going on after epoch" in again.said()) == (main == SAVING)
    assert_same_bits(tmp_path / "run", two[0], experiment)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("extra", "devices", "message"),
    [
        (["--batch", "30"], (2, 2), "30 images cannot be cut evenly over 4 devices"),
        ([], (1, 2), "the processes have [1, 2]"),
        (["--execution.devices", "3"], (2, 2), "devices: 3 asked for"),
    ],
)
def test_what_all_see_wrong_ends_all_with_a_line(tmp_path, extra, devices, message):
    cluster = start(tmp_path, tmp_path / "run", *extra, devices=devices)
    assert cluster.wait(60) == [2, 2], cluster.said()
    for log in cluster.logs:
        (line,) = [x for x in log.read_text().splitlines() if x.startswith("fairgrape: ")]
        assert line.startswith("fairgrape: error: ")
        assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.multiprocess
def test_what_one_alone_sees_wrong_stops_the_others(tmp_path):
    missing = ("--dataset", "utkface", "--data.path", "nowhere")
    cluster = start(tmp_path, tmp_path / "run", second=missing)
    codes = cluster.wait(60)
    assert codes[1] == 2
    assert codes[0] not in (0, 2), cluster.said()
    assert "nowhere" in cluster.logs[1].read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "second", [("--seeds", "1"), ("--data.seed", "2"), ("--plugin", "mine.py")]
)
def test_processes_with_other_options_are_refused(tmp_path, second):
    (tmp_path / "mine.py").write_text(plugins.METRICS)
    cluster = start(tmp_path, tmp_path / "run", second=second)
    assert cluster.wait(60) == [2, 2], cluster.said()
    assert cluster.said().count("error: --distributed: the processes were given different") == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.multiprocess
def test_slurm_tells_who_the_processes_are(two, tmp_path, experiment):
    """No flag but --distributed: jax reads what SLURM sets in each task."""
    (tmp_path / "small.py").write_text(EXPERIMENT)
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    slurm |= {"JAX_COORDINATOR_PORT": str(free_port())}
    command = ["-c", MAIN, "run", "small.py", "--out", str(tmp_path / "run"), "--distributed"]
    tasks = [slurm | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    cluster = Cluster(tmp_path, [command] * 2, (2, 2), tasks)
    assert cluster.wait() == [0, 0], cluster.said()
    assert_same_bits(tmp_path / "run", two[0], experiment)


def test_without_a_cluster_the_flags_are_asked_for(tmp_path):
    (tmp_path / "small.py").write_text(EXPERIMENT)
    command = ["-m", "fairgrape_jax", "run", "small.py", "--distributed"]
    cluster = Cluster(tmp_path, [command], [1])
    assert cluster.wait(60) == [2], cluster.said()
    assert "give --coordinator-address HOST:PORT" in cluster.said()
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_taken_and_a_host_that_does_not_answer():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on port {port}"):
            hosts.join_cluster(hosts.Cluster(f"localhost:{port}", 2, 0))
    with pytest.raises(UsageError, match=f"nothing answers at localhost:{port} after 1 s"):
        hosts.join_cluster(hosts.Cluster(f"localhost:{port}", 2, 1, start=1))
