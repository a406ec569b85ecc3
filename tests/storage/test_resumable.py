"""A pass over data that is stopped goes on from there, and every batch of it is gathered once."""

import dataclasses
import errno
import itertools

import jax
import numpy as np
import pytest

from fairgrape_jax import data, masks, parallel
from fairgrape_jax.config import Scoring
from fairgrape_jax.errors import Preempted, UsageError
from fairgrape_jax.methods import METHODS
from fairgrape_jax.parallel import preemption
from fairgrape_jax.rounds import cluster, steps
from fairgrape_jax.rounds import select as pruning
from fairgrape_jax.storage import resumable
from tests.helpers.experiments import TINY

BATCHES = 7


@pytest.fixture
def place(tmp_path):
    return resumable.Place(tmp_path / "stage/partial/sum", {"step": 3}, jax.local_devices()[:2])


@pytest.fixture
def notices(monkeypatch):
    """After how many looks a notice comes; None for never."""
    left = {"looks": None}

    def reached():
        if left["looks"] is not None:
            left["looks"] -= 1
        return left["looks"] == 0

    monkeypatch.setattr(preemption, "stop_requested", reached)
    return left


def gather(place, made, begin=None):
    """The sum of all batches' halves and thirds, from where `place` has it; made: which were."""
    done, kept = resumable.read(place) if begin is None else (begin, [])
    start = tuple(kept) or (np.zeros(3, np.float32), np.float32(0))

    def step(sums, batch):
        made.append(batch)
        return sums[0] + np.float32(batch) / 3, sums[1] + np.float32(batch) / 2

    batches = range(done, BATCHES)
    return resumable.fold(step, start, batches, place=place, done=done, what="the sum")


def stopped(place, notices, looks, made):
    notices["looks"] = looks
    with pytest.raises(Preempted, match="in the sum"):
        gather(place, made)
    notices["looks"] = None


def files(place):
    return sorted(path.name for path in place.path.parent.glob("*"))


def test_a_pass_that_is_stopped_again_and_again_is_the_same(place, notices):
    wanted = gather(None, [])
    for looks in itertools.product(range(1, 4), repeat=2):
        made = []
        for number in looks:
            stopped(place, notices, number, made)
            assert len(files(place)) == (2 if made else 0)  # the record and the last arrays
        found = gather(place, made)
        assert made == list(range(BATCHES))
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not files(place)


def test_the_clock_keeps_a_pass_too(place, monkeypatch):
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_EVERY", 3)
    kept, write = [], resumable.write
    monkeypatch.setattr(resumable, "write", lambda *how: (kept.append(how[1]), write(*how)))
    gather(place, [])
    assert kept == [3, 6]


def test_a_pass_that_is_over_is_kept_where_it_is_asked_for(place, notices):
    made, whole = [], dataclasses.replace(place, over="keep")
    first, again = gather(whole, made), gather(whole, made)
    assert made == list(range(BATCHES))
    np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.parametrize("key", [{"step": 4}, {"step": 3, "seed": 0}, {}])
def test_another_pass_is_not_read(place, notices, key):
    stopped(place, notices, 3, [])
    assert resumable.read(place)[0] == 2
    assert resumable.read(dataclasses.replace(place, key=key)) == (0, [])
    assert resumable.read(dataclasses.replace(place, devices=place.devices[:1])) == (0, [])


def test_processes_that_have_not_kept_as_much_begin_anew(place, notices, monkeypatch):
    stopped(place, notices, 3, [])
    monkeypatch.setattr(parallel, "all_gather_rows", lambda rows: np.array([[2], [2], [1]]))
    assert resumable.read(place) == (0, [])


DAMAGES = {
    "cut": lambda held: held[: len(held) // 2],
    "emptied": lambda held: b"",
    "altered": lambda held: held[:-9] + bytes([held[-9] ^ 1]) + held[-8:],
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_what_is_damaged_is_not_read(place, notices, damage, suffix, capsys):
    stopped(place, notices, 3, [])
    (path,) = place.path.parent.glob(f"*.{suffix}")
    if alter := DAMAGES[damage]:
        path.write_bytes(alter(path.read_bytes()))
    else:
        path.unlink()
    assert resumable.read(place) == (0, [])
    said = capsys.readouterr().out
    if suffix == "npz":
        assert f"{path}: damaged or gone; this pass begins anew" in said


def test_a_full_disk_is_said_and_the_pass_goes_on(place, monkeypatch, capsys):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_EVERY", 3)
    monkeypatch.setattr(np, "savez", full)
    made = []
    gather(place, made)
    assert made == list(range(BATCHES))
    assert "what this pass has gathered is not kept" in capsys.readouterr().out
    assert not files(place)


SMALL = dataclasses.replace(
    TINY,
    data=data.source("synthetic", samples=160, groups=3, classes=3, size=4, noise=0.5, seed=1),
    model="mlp",
    scoring=Scoring(fraction=0.5, micro_batch=4, samples=24, select="greedy"),
)


@pytest.fixture(scope="module")
def network():
    dataset = data.load(SMALL.data)
    compiled = steps.build(SMALL, dataset, jax.local_devices()[:2])
    state = steps.initial_state(SMALL, compiled, dataset, 0)
    return dataset, compiled, state, steps.initial_masks(compiled, state)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_is_stopped_scores_each_micro_batch_once(
    name, network, notices, tmp_path
):
    """And chooses the same weights; a choice that was made is read, whatever comes later."""
    dataset, compiled, state, alive = network
    counts = {"calls": 0}

    def accumulate(*how):
        step = compiled.accumulate(*how)

        def counted(*args):
            counts["calls"] += 1
            return step(*args)

        return counted

    watched = dataclasses.replace(compiled, accumulate=accumulate)

    def select(keep):
        given = SMALL, watched, dataset, name, state, alive, 0.5, 7
        return pruning.select(*given, keep=keep)

    wanted, details = select(None)
    calls, counts["calls"], stops = counts["calls"], 0, 0
    while True:
        notices["looks"] = 4
        try:
            found = select(tmp_path)
            break
        except Preempted:
            stops += 1
    assert stops == calls // 3 - (calls % 3 == 0) if calls else stops == 0
    assert counts["calls"] == calls
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"chosen"}
    again = select(tmp_path)
    assert counts["calls"] == calls
    for chosen, how in (found, again):
        assert how == details
        jax.tree.map(np.testing.assert_array_equal, chosen, wanted)
    assert masks.density(jax.device_get(wanted)) == pytest.approx(0.5, abs=0.01)


def test_an_embedding_that_is_stopped_goes_on(network, notices, tmp_path):
    dataset, compiled, state, _ = network
    experiment = dataclasses.replace(
        SMALL, evaluation_batch=16, scoring=dataclasses.replace(SMALL.scoring, groups="kmeans:2")
    )
    given = experiment, compiled, dataset, state
    wanted = cluster.scored_by(*given, tmp_path / "whole/clusters.npz", 0)
    notices["looks"] = 3
    with pytest.raises(Preempted, match="in the clustering, kept after batch 2"):
        cluster.scored_by(*given, tmp_path / "run/clusters.npz", 0)
    found = cluster.scored_by(*given, tmp_path / "run/clusters.npz", 0)
    np.testing.assert_array_equal(found.train.groups, wanted.train.groups)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["clusters.npz"]


def test_clusters_that_are_damaged_are_made_anew(network, tmp_path, capsys):
    dataset, compiled, state, _ = network
    experiment = dataclasses.replace(
        SMALL, scoring=dataclasses.replace(SMALL.scoring, groups="kmeans:2")
    )
    given = experiment, compiled, dataset, state, tmp_path / "clusters.npz", 0
    wanted = cluster.scored_by(*given).train.groups
    whole = given[4].read_bytes()
    for held in (whole[:-30], b"", whole[:80] + bytes([whole[80] ^ 1]) + whole[81:]):
        given[4].write_bytes(held)
        with pytest.raises(UsageError, match="damaged or gone"):
            cluster.read(given[4], len(dataset.train))
        np.testing.assert_array_equal(cluster.scored_by(*given).train.groups, wanted)
        assert "clusters.npz: damaged; made anew" in capsys.readouterr().out
        assert given[4].read_bytes() == whole
