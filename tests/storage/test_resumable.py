"""A pass over data that is stopped goes on from there, and every batch of it is gathered once."""

import dataclasses
import errno
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import data, parallel, passes
from fairgrape_jax.config import Clusters, Scoring
from fairgrape_jax.errors import Preempted, UsageError
from fairgrape_jax.methods import METHODS, pruning
from fairgrape_jax.parallel import preemption
from fairgrape_jax.rounds import cluster, select
from fairgrape_jax.runner import round as rounds
from fairgrape_jax.runner.round import Round
from fairgrape_jax.storage import clusters, resumable
from fairgrape_jax.storage.resumable import Passes
from tests.helpers.experiments import TINY, opened, with_fields

BATCHES = 7
KEY = {"pass": "sum", "step": 3}


@pytest.fixture
def notices(monkeypatch):
    """After how many looks a notice comes; None for never."""
    left = {"looks": None}

    def requested():
        if left["looks"] is not None:
            left["looks"] -= 1
        return left["looks"] == 0

    monkeypatch.setattr(preemption, "stop_requested", requested)
    return left


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "stage/partial"


def kept_in(directory, devices=2):
    """Passes of a process that has just begun."""
    return Passes(directory, jax.local_devices()[:devices])


def gather(fold, made, key=KEY, kind=np, finish=list):
    """The sums of all batches' halves and thirds; made: which batches were gathered."""

    def step(sums, batch):
        made.append(batch)
        return sums[0] + np.float32(batch) / 3, sums[1] + np.float32(batch) / 2

    start = kind.zeros(3, np.float32), kind.zeros((), np.float32)
    return fold(step, start, lambda begin: range(begin, BATCHES), key=key, finish=finish)


def collect(fold, made, key=KEY):
    """Each batch and its square, of which there are as many as batches."""

    def step(rows, batch):
        made.append(batch)
        return [*rows, np.array([batch, batch**2])]

    def finish(rows):
        return [np.stack(rows)]

    return fold(step, [], lambda begin: range(begin, BATCHES), key=key, finish=finish)


GATHERED = {"host": gather, "devices": functools.partial(gather, kind=jnp), "rows": collect}


def stopped(directory, notices, looks, made, gather=gather):
    notices["looks"] = looks
    with pytest.raises(Preempted, match="in the sum, kept after batch"):
        gather(kept_in(directory), made)
    notices["looks"] = None


def files(directory):
    return sorted(path.name for path in directory.glob("*"))


@pytest.mark.parametrize("kind", GATHERED)
def test_a_pass_that_is_stopped_again_and_again_is_the_same(kind, directory, notices):
    gather = GATHERED[kind]
    expected = gather(passes.fold, [])
    for looks in itertools.product(range(1, 4), repeat=2):
        made = []
        for number in looks:
            stopped(directory, notices, number, made, gather)
            assert len(files(directory)) == (2 if made else 0)  # the record and the last arrays
        fold = kept_in(directory)
        found = gather(fold, made)
        assert made == list(range(BATCHES))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        fold.clear()
        assert not directory.exists()


def test_what_was_on_devices_goes_on_there(directory, notices):
    """Each array where the initial one was."""
    devices = jax.local_devices()[:2]
    places = []

    def step(sums, batch):
        places.append(sums.sharding)
        return sums + batch

    def run():
        start = parallel.sharded_zeros((3,), devices)
        return kept_in(directory)(step, start, lambda begin: range(begin, 4), key=KEY)

    notices["looks"] = 3
    with pytest.raises(Preempted):
        run()
    run()
    assert len(places) == 4
    assert all(place == places[0] for place in places)


def test_the_clock_keeps_a_pass_too(directory, monkeypatch):
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_EVERY", 3)
    counts, write = [], resumable.write

    def counted(path, key, devices, kept):
        counts.append(kept.count)
        write(path, key, devices, kept)

    monkeypatch.setattr(resumable, "write", counted)
    gather(kept_in(directory), [])
    assert counts == [3, 6]


def test_a_finished_pass_is_kept_when_a_later_one_is_stopped(directory, notices):
    fold, made = kept_in(directory), []
    first = gather(fold, made)
    assert not files(directory)  # not before it is of use
    notices["looks"] = 1
    with pytest.raises(Preempted):
        collect(fold, [], key={"pass": "rows"})
    notices["looks"] = None
    again = gather(kept_in(directory), made)
    assert made == list(range(BATCHES))
    jax.tree.map(np.testing.assert_array_equal, again, first)


def test_passes_go_by_what_they_compute_and_not_by_their_order(directory, notices):
    """The second of two is stopped; they come in the other order then."""
    keys = [{"pass": "sum", "over": over} for over in ("groups", (0, 2))]
    fold, made = kept_in(directory), {0: [], 1: []}
    gather(fold, made[0], keys[0])
    notices["looks"] = 4
    with pytest.raises(Preempted):
        gather(fold, made[1], keys[1])
    notices["looks"] = None
    fold = kept_in(directory)
    for number in (1, 0):
        gather(fold, made[number], keys[number])
    assert made == {0: list(range(BATCHES)), 1: list(range(BATCHES))}


def test_a_pass_whose_result_is_refused_begins_anew(directory, notices):
    stopped(directory, notices, 3, [])

    def refuse(sums):
        raise ValueError("not finite")

    with pytest.raises(ValueError, match="not finite"):
        gather(kept_in(directory), [], finish=refuse)
    made = []
    gather(kept_in(directory), made)
    assert made == list(range(BATCHES))


OTHERS = {
    "step": ({"pass": "sum", "step": 4}, 2),
    "more": ({"pass": "sum", "step": 3, "seed": 0}, 2),
    "less": ({"pass": "sum"}, 2),
    "devices": (KEY, 1),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_pass_is_not_read(directory, notices, other):
    stopped(directory, notices, 3, [])
    key, devices = OTHERS[other]
    made = []
    gather(kept_in(directory, devices), made, key)
    assert made == list(range(BATCHES))


def test_processes_that_have_not_kept_as_much_begin_anew(directory, notices, monkeypatch):
    for others in ([[2, 0], [2, 0], [1, 0]], [[2, 0], [2, 1]]):
        stopped(directory, notices, 3, [])
        with monkeypatch.context() as patch:
            patch.setattr(parallel, "all_gather_rows", lambda rows, o=others: np.array(o))
            made = []
            gather(kept_in(directory), made)
        assert made == list(range(BATCHES))


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "altered": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_what_is_damaged_is_not_read(directory, notices, damage, suffix, capsys):
    stopped(directory, notices, 3, [])
    (path,) = directory.glob(f"*.{suffix}")
    if alter := DAMAGES[damage]:
        path.write_bytes(alter(path.read_bytes()))
    else:
        path.unlink()
    made = []
    gather(kept_in(directory), made)
    assert made == list(range(BATCHES))
    if suffix == "npz":
        line = f"{path}: damaged or gone; this pass begins anew"
        assert line in capsys.readouterr().out


def test_a_full_disk_is_reported_and_the_pass_goes_on(directory, monkeypatch, capsys):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_EVERY", 3)
    monkeypatch.setattr(np, "savez", full)
    made = []
    gather(kept_in(directory), made)
    assert made == list(range(BATCHES))
    assert "what this pass has gathered is not kept" in capsys.readouterr().out
    assert not files(directory)


SMALL = dataclasses.replace(
    TINY,
    data=data.source("synthetic", samples=160, groups=3, classes=3, size=4, noise=0.5, seed=1),
    model="mlp",
    scoring=Scoring(fraction=0.5, micro_batch=4, samples=24, select="greedy"),
)


@pytest.fixture(scope="module")
def network():
    return opened(SMALL, data.load(SMALL.data), 2)


@pytest.mark.whole(but=9)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_is_stopped_scores_each_micro_batch_once(
    name, network, notices, tmp_path
):
    """And chooses the same weights; a choice that was made is read, whatever comes later."""
    session, before = network
    counts = {"calls": 0}

    def accumulate(*options):
        step = session.steps.accumulate(*options)

        def counted(*args):
            counts["calls"] += 1
            return step(*args)

        return counted

    watched = dataclasses.replace(
        session, steps=dataclasses.replace(session.steps, accumulate=accumulate)
    )

    def choose(run):
        this = Round(watched, run, seed=0, method=name, number=1, count=3)
        return this, *rounds.choose(this, before, session=watched, density=0.5, dense=before)

    _, expected, details = choose(tmp_path / "whole")
    calls, counts["calls"], stops = counts["calls"], 0, 0
    while True:
        notices["looks"] = 4
        try:
            this, *found = choose(tmp_path / "run")
            break
        except Preempted:
            stops += 1
    assert stops == calls // 3 - (calls % 3 == 0) if calls else stops == 0
    assert counts["calls"] == calls
    kept = this.directory / "partial"
    assert {path.name.split(".")[0] for path in kept.iterdir()} == {"chosen"}
    _, *again = choose(tmp_path / "run")
    assert counts["calls"] == calls
    for chosen, how in (found, again):
        assert how == details
        jax.tree.map(np.testing.assert_array_equal, chosen, expected)
    question = select.make_problem(session, before, seed=0)
    count = sum((METHODS[name].counts or pruning.counts)(question, 0.5).values())
    assert sum(leaf.sum() for leaf in jax.tree.leaves(jax.device_get(expected))) == count


def clustered(session, **changes):
    """The session with groups by clusters."""
    scoring = dataclasses.replace(session.experiment.scoring, groups=Clusters(2))
    experiment = with_fields(session.experiment, scoring=scoring, **changes)
    return dataclasses.replace(session, experiment=experiment)


def groups_of(session, network, path):
    samples = len(session.dataset.train)
    kept = functools.partial(clusters.read_or_make, path, samples, session.devices)
    found = cluster.session_for_scoring(session, network, seed=0, read_or_make=kept)
    return found.dataset.train.groups


def test_an_embedding_that_is_stopped_goes_on(network, notices, tmp_path):
    session, dense = clustered(network[0], evaluation_batch=16), network[1]
    expected = groups_of(session, dense, tmp_path / "whole/clusters.npz")
    notices["looks"] = 3
    with pytest.raises(Preempted, match="in the clustering, kept after batch 2"):
        groups_of(session, dense, tmp_path / "run/clusters.npz")
    found = groups_of(session, dense, tmp_path / "run/clusters.npz")
    np.testing.assert_array_equal(found, expected)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["clusters.npz"]


def test_clusters_are_the_same_where_nothing_is_kept(network, tmp_path):
    session, dense = clustered(network[0]), network[1]
    plain = cluster.session_for_scoring(session, dense, seed=0).dataset.train.groups
    np.testing.assert_array_equal(plain, groups_of(session, dense, tmp_path / "clusters.npz"))


def test_clusters_that_are_damaged_are_made_anew(network, tmp_path, capsys):
    session, dense = clustered(network[0]), network[1]
    path = tmp_path / "clusters.npz"
    expected = groups_of(session, dense, path)
    whole = path.read_bytes()
    for content in (whole[:-30], b"", whole[:80] + bytes([whole[80] ^ 1]) + whole[81:]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="damaged or gone"):
            clusters.read_clusters(path, len(session.dataset.train))
        np.testing.assert_array_equal(groups_of(session, dense, path), expected)
        assert "clusters.npz: damaged; made anew" in capsys.readouterr().out
        assert path.read_bytes() == whole
