"""One writer to a directory, whoever dies on the way."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import lock

HOLD = """
import sys, time
from pathlib import Path
from fairgrape_jax.storage import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path, holder):
    with (
        pytest.raises(UsageError, match=f"by process {holder.pid} on"),
        lock.hold(tmp_path / "lock"),
    ):
        pass
    assert lock.read_holder(tmp_path / "lock")["process"] == holder.pid


def test_a_lock_falls_with_its_process(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock.hold(tmp_path / "lock"):
        assert lock.read_holder(tmp_path / "lock")["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("age", "refused"), [(0, True), (lock.STALE_AFTER - 5, True), (lock.STALE_AFTER + 5, False)]
)
def test_a_lock_of_another_host_counts_until_its_signs_of_life_end(tmp_path, age, refused):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "started": "5"}))
    os.utime(path, (time.time() - age,) * 2)
    if refused:
        with pytest.raises(UsageError, match="by process 1 on elsewhere"), lock.hold(path):
            pass
    else:
        with lock.hold(path):
            assert lock.read_holder(path)["process"] == os.getpid()


def test_a_process_number_that_was_given_anew_does_not_count(tmp_path):
    path = tmp_path / "lock"
    holder = {"host": lock.socket.gethostname(), "process": os.getpid(), "started": "long ago"}
    path.write_text(json.dumps(holder))
    with lock.hold(path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"host": "x"}', "\x00\xff"])
def test_what_is_no_lock_is_taken_over(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with lock.hold(tmp_path / "lock"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "age", "stays"),
    [
        ("metrics.json.{gone}@{here}.partial", 0, False),
        ("seed_0/dense.lock.{gone}@{here}.new", 0, False),
        ("room.{gone}@{here}.probe", 0, False),
        ("seed_0/x/round_01/masks.npz.{gone}@{here}.partial", 0, False),
        ("seed_0/dense.lock.{own}@{here}.dead", 0, True),
        ("seed_0/dense.lock.{gone}@elsewhere.new", 0, True),
        ("seed_0/dense.lock.{gone}@elsewhere.new", lock.STALE_AFTER + 5, False),
        ("seed_0/somebody@{here}.partial", lock.STALE_AFTER + 5, True),
        ("seed_0/data.{gone}@{here}.csv", lock.STALE_AFTER + 5, True),
    ],
)
def test_what_a_dead_process_left_is_swept_and_nothing_else(tmp_path, name, age, stays):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = lock.socket.gethostname()
    path = tmp_path / name.format(gone=gone.pid, own=os.getpid(), here=here)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    os.utime(path, (time.time() - age,) * 2)
    lock.remove_leftovers(tmp_path)
    assert path.exists() == stays


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    path = tmp_path / "lock"
    with lock.hold(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(lock.os, "link", refuse)
    path = tmp_path / "lock"
    with lock.hold(path), pytest.raises(UsageError, match="is being written"), lock.hold(path):
        pass


def test_of_many_that_see_a_dead_lock_one_gets_it(tmp_path):
    """By processes, not threads: a process has one number."""
    (tmp_path / "lock").write_text(
        json.dumps({"host": lock.socket.gethostname(), "process": 2**22 + 1, "started": "1"})
    )
    code = HOLD.replace("time.sleep(60)", "time.sleep(3)")

    def attempt(_):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True
        )
        return done.stdout

    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(attempt, range(6)))
    assert said.count("held\n") == 1
