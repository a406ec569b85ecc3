"""The lock of a run on an object store: one holder, whoever dies and whoever is quicker."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import lease, lock
from tests.helpers import flat_store

HOLD = """
import sys, time
from tests.helpers import flat_store
from fairgrape_jax.storage import as_path, lease
with lease.hold(as_path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    return flat_store.bucket(tmp_path / "objects", monkeypatch) / "run/dense.lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def age(path, seconds):
    """As if an object had been written so many seconds ago."""
    os.utime(flat_store.FlatStore()._file(str(path)), (time.time() - seconds,) * 2)


def of_another_machine(path, **fields):
    other = {"host": "elsewhere", "machine": "m", "process": 1, "started": "5", "token": "t"}
    path.write_text(json.dumps(other | fields))


def test_a_second_process_is_refused_and_told_how_to_break_the_lock(path, holder):
    line = f"by process {holder.pid} on .*last sign of life .*if it is gone remove {path}"
    with pytest.raises(UsageError, match=line), lease.hold(path):
        pass
    age(path, 1e4)  # a holder of this machine lives as long as its process
    with pytest.raises(UsageError, match=line), lease.hold(path):
        pass


def test_a_lock_falls_with_its_process(path, holder):
    holder.kill()
    holder.wait()
    with lease.hold(path):
        assert lock.read_holder(path)["process"] == os.getpid()
    assert not list(path.parent.rglob("*"))


@pytest.mark.parametrize("beat", [False, True])
@pytest.mark.parametrize(
    ("seconds", "refused"),
    [(0, True), (lock.STALE_AFTER - 15, True), (lock.STALE_AFTER + 5, False)],
)
def test_a_lock_of_another_machine_counts_until_its_signs_of_life_end(path, seconds, refused, beat):
    of_another_machine(path)
    sign = path
    if beat:  # the last sign counts, not when the lock was made
        age(path, 1e4)
        sign = path.with_name("dense.lock.1@elsewhere.beat")
        sign.write_bytes(b"alive")
    age(sign, seconds)
    if refused:
        with pytest.raises(UsageError, match="by process 1 on elsewhere"), lease.hold(path):
            pass
        assert lock.read_holder(path)["host"] == "elsewhere"
    else:
        with lease.hold(path):
            assert lock.read_holder(path)["process"] == os.getpid()
        assert not list(path.parent.rglob("*"))


@pytest.mark.parametrize(
    "fields", [{"host": lock.socket.gethostname()}, {"process": os.getpid(), "host": "elsewhere"}]
)
def test_a_machine_of_the_same_name_is_not_this_one(path, fields):
    """A container's hostname and process numbers may be those of another one."""
    of_another_machine(path, **fields)
    with pytest.raises(UsageError, match="is being written"), lease.hold(path):
        pass


def test_a_process_number_that_was_given_anew_does_not_count(path):
    here = {"host": lock.socket.gethostname(), "machine": lease.machine(), "process": os.getpid()}
    of_another_machine(path, **here, started="long ago")
    with lease.hold(path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "x"}'])
def test_what_is_no_lock_is_named(path, text):
    path.write_text(text)
    with pytest.raises(UsageError, match=f"{path}: is no lock .*remove it"), lease.hold(path):
        pass
    assert path.read_text() == text


def test_the_holder_shows_that_it_lives(path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with lease.hold(path):
        before = path.read_bytes()
        until = time.monotonic() + 10
        while not list(path.parent.glob("*.beat")) and time.monotonic() < until:
            time.sleep(0.01)
        assert list(path.parent.glob("*.beat"))
        assert path.read_bytes() == before  # never written again: nobody's lock is overwritten
    assert not list(path.parent.rglob("*"))


def test_a_dead_lock_is_taken_over_by_one_alone(path):
    for turn in range(5):
        of_another_machine(path, token=f"t{turn}")
        age(path, 1e4)
        start, inside, most = threading.Barrier(8), [], []

        def take(number, start=start, inside=inside, most=most):
            start.wait()
            try:
                with lease.hold(path):
                    inside.append(number)
                    most.append(len(inside))
                    time.sleep(0.05)
                    inside.remove(number)
            except UsageError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(8) as pool:
            refusals = list(pool.map(take, range(8)))
        assert refusals.count("") >= 1
        assert max(most) == 1
        assert all("is being written" in text for text in refusals if text)
        assert not list(path.parent.rglob("*"))


def test_one_who_dies_while_taking_over_is_taken_over_from(path):
    of_another_machine(path)
    grave = path.with_name("dense.lock.t.dead")
    of_another_machine(grave, token="u")
    for each in (path, grave):
        age(each, 1e4)
    with lease.hold(path):
        assert lock.read_holder(path)["process"] == os.getpid()
    assert not list(path.parent.rglob("*"))


def test_a_lock_that_another_has_taken_over_is_left_to_it(path):
    with lease.hold(path):
        of_another_machine(path)
    assert lock.read_holder(path)["host"] == "elsewhere"
