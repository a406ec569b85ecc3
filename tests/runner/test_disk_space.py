"""No room, no right, no quota: a line that names the file, nothing lost, and the same command goes
on when it is mended."""

import contextlib
import errno
import fnmatch
import functools
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple

import jax
import numpy as np
import pytest

from fairgrape_jax import storage
from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Epoch, KeepLast, Stage
from fairgrape_jax.data import load
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.reports import run as report
from fairgrape_jax.rounds import train
from fairgrape_jax.runner import disk_space, layout, resume
from fairgrape_jax.runner import run as runner
from fairgrape_jax.storage import checkpoint, resumable
from tests.helpers.experiments import TINY, assert_same, stage_files, with_fields

EXPERIMENT = '''"""One round, small."""
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import source

EXPERIMENT = Experiment(
    data=source("synthetic", samples=400, groups=3, classes=3, size=8, noise=0.5, seed=1),
    model="cnn",
    methods=("magnitude",),
    sparsity=0.5,
    keep_per_round=0.5,
    dense=Stage((1,), (1e-2,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16),
    batch=32,
    execution=Execution(devices=1),
)
'''
# Every write of a run below its directory, as Python sees it; * stands for a process's number. The
# files of a checkpoint that TensorStore writes are in none of Python's calls: those fail on a disk
# that is really full, below.
WRITES = [
    ("seed_0/dense.lock.*.new", errno.ENOSPC),
    ("seed_0/dense/checkpoint.*", errno.EDQUOT),
    ("seed_0/dense/metrics.json.*.partial", errno.ENOSPC),
    ("seed_0/magnitude.lock.*.new", errno.EACCES),
    ("seed_0/magnitude/round_01/partial/0.*", errno.ENOSPC),
    ("seed_0/magnitude/round_01/partial/0/digests.json.*.partial", errno.EDQUOT),
    ("seed_0/magnitude/round_01/checkpoint.*", errno.ENOSPC),
    ("seed_0/magnitude/round_01/checkpoint/digests.json.*.partial", errno.EROFS),
    ("seed_0/magnitude/round_01/masks.npz.*.partial", errno.EDQUOT),
    ("seed_0/magnitude/round_01/predictions.csv.*.partial", errno.ENOSPC),
    ("seed_0/magnitude/round_01/metrics.json.*.partial", errno.EACCES),
    ("metrics.jsonl.*.partial", errno.EDQUOT),
    ("metrics.csv.*.partial", errno.ENOSPC),
    ("*.png.*.partial", errno.EROFS),
    ("report.md.*.partial", errno.EDQUOT),
    ("report.html.*.partial", errno.ENOSPC),
]
# What the run can do without, and only says.
AIDS = [
    ("seed_0/magnitude/round_01/partial/chosen.0.1.npz.*.partial", errno.ENOSPC),
    ("seed_0/magnitude/round_01/partial/chosen.0.json.*.partial", errno.EDQUOT),
    ("seed_0/magnitude/round_01/partial/passes/evaluation_*.0.*", errno.EROFS),
    ("seed_0/magnitude/round_01/partial/passes/scoring_*.0.*", errno.EACCES),
]
# Before anything is computed: the probe, and what is written at once.
FIRST = ["room.*.probe", "config.json.*.partial"]


class Disk:
    """What is written below `root`, and which of it fails with what; by an audit hook."""

    def __init__(self):
        self.root, self.written, self.failing = None, [], None

    def __call__(self, event, args):
        if self.root is None or event not in ("open", "os.mkdir"):
            return
        path = args[0]
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(self.root):
            return
        if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        name = os.path.relpath(path, self.root)
        if event == "open":
            self.written.append(name)
        if self.failing and fnmatch.fnmatch(name, self.failing[0]):
            raise OSError(self.failing[1], os.strerror(self.failing[1]), str(path))


DISK = Disk()


@functools.cache
def hook():
    """For good, so not before it is needed: it is called at every `id()` of the process."""
    sys.addaudithook(DISK)


@contextlib.contextmanager
def disk(root, pattern=None, code=0):
    hook()
    DISK.root, DISK.written = str(root), []
    DISK.failing = (pattern, code) if pattern else None
    try:
        yield DISK.written
    finally:
        DISK.root = None


@pytest.fixture(autouse=True)
def saving(monkeypatch):
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)  # after each epoch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    (folder / "small.py").write_text(EXPERIMENT)
    return folder


def command(place, run):
    return main(["run", str(place / "small.py"), "--out", str(run)])


@pytest.fixture(scope="module")
def whole(place):
    """A run that nothing happened to, and what it wrote."""
    with pytest.MonkeyPatch.context() as patch, disk(place / "whole") as written:
        patch.setattr(resumable, "SAVE_EVERY", 0.0)
        assert command(place, place / "whole") == 0
    return place / "whole", list(written)


@pytest.fixture(scope="module")
def dense(whole, place):
    """The same run, of which only the dense network is there."""
    shutil.copytree(whole[0] / "seed_0/dense", place / "dense/seed_0/dense")
    shutil.copy(whole[0] / "config.json", place / "dense")
    return place / "dense"


@pytest.mark.whole
def test_the_table_names_every_write_of_a_run(whole):
    _, written = whole
    known = [pattern for pattern, _ in WRITES + AIDS] + FIRST
    known += [pattern.replace("magnitude/round_01", "dense") for pattern in known]
    for name in written:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in known), name
    for pattern, _ in WRITES + AIDS:
        assert any(fnmatch.fnmatch(name, pattern) for name in written), pattern


@pytest.mark.whole(but=2)
@pytest.mark.parametrize(
    ("pattern", "code"),
    [pytest.param(*each, marks=[pytest.mark.slow] * (i % 3 > 0)) for i, each in enumerate(WRITES)],
)
def test_a_write_that_fails_is_named_and_nothing_is_lost(
    pattern, code, whole, dense, place, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    if "dense" not in pattern:
        shutil.copytree(dense, run)
    with disk(run, pattern, code):
        assert command(place, run) == 1
    said = capsys.readouterr().err
    assert said.startswith("fairgrape: stopped: ")
    assert said.count("\n") == 1
    file = re.match(r"fairgrape: stopped: (\S+): cannot be written", said)[1]
    assert file.startswith(str(run))
    assert f"({os.strerror(code)}); {storage.CURES[code]}, and the same command goes on" in said
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*-tmp*")) + list(run.rglob("*.probe"))
    if "dense" not in pattern:
        assert resume.is_intact(run / "seed_0/dense")
    if "seed" in pattern:  # the report takes half of the time of this test
        monkeypatch.setattr(report, "write", lambda *_: None)
    assert command(place, run) == 0
    assert_same(stage_files(run), stage_files(whole[0]))


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(("pattern", "code"), AIDS)
def test_an_aid_that_cannot_be_written_is_said_and_not_missed(
    pattern, code, whole, dense, tmp_path, place, capsys
):
    run = shutil.copytree(dense, tmp_path / "run")
    with disk(run, pattern, code):
        assert command(place, run) == 0
    said = capsys.readouterr().out
    assert f"({os.strerror(code)})" in said
    assert "what this pass has gathered is not kept" in said
    assert_same(stage_files(run), stage_files(whole[0]))


@pytest.mark.parametrize("pattern", ["*.probe"])
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_that_cannot_be_written_is_refused_before_any_compute(
    pattern, code, place, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(runner, "dense_stage", None)
    for run in (tmp_path / "a" / "b", tmp_path / "there"):
        if run.name == "there":
            run.mkdir()
        with disk(tmp_path, pattern, code):
            assert command(place, run) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"fairgrape: error: {run}: cannot be written ({os.strerror(code)})")
        assert "give another --out" in said
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_save_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    """The place after the first epoch is kept when that after the second has no room."""
    begin, saved = checkpoint.begin_save, []

    def failing(directory, tree, *metadata):
        if directory.parent.name == "partial":
            saved.append(directory)
        if len(saved) < 2:
            return begin(directory, tree, *metadata)
        tree = jax.device_get(tree)

        def end():
            with disk(tmp_path, "*partial/1.*", errno.ENOSPC):
                begin(directory, tree, *metadata)()

        return end

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "begin_save", failing)
        with pytest.raises(OSError, match="No space left"):
            runner.run(TINY, tmp_path / "run")
    assert not checkpoint.damaged_files(tmp_path / "run/seed_0/dense/partial/0")
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(train, "say", lines.append)
        patch.setattr(runner, "prune_rounds", lambda *_, **__: None)
        runner.run(TINY, tmp_path / "run")
    assert lines[0] == "seed 0 dense: going on after epoch 1"


# --- a disk that is really full


@pytest.fixture
def tmpfs(tmp_path):
    """resize(bytes or "ro"): a small file system of its own."""
    where = tmp_path / "disk"
    where.mkdir()

    def mount(*options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(where)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    mount("size=8m")
    try:
        yield where, lambda option: mount("remount", option)
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def leave(where, free):
    """Fill the disk until so many bytes are free."""
    with (where / "fill").open("wb") as file:
        file.write(bytes(shutil.disk_usage(where).free - free))


@pytest.mark.whole(but=1)
@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    "free",
    [
        4096,
        100_000,
        pytest.param(60_000, marks=pytest.mark.slow),
        pytest.param(180_000, marks=pytest.mark.slow),
    ],
)
def test_a_run_on_a_full_disk_stops_and_goes_on(
    free, tmpfs, whole, dense, place, capsys, monkeypatch
):
    """Wherever it is that the room ends, in the middle of a write."""
    monkeypatch.setattr(disk_space, "check_room", lambda *_: None)
    where, _ = tmpfs
    run = where / "run"
    shutil.copytree(dense, run)
    leave(where, free)
    code = command(place, run)
    said = capsys.readouterr().err
    assert code in (1, 2), said
    assert f"cannot be written ({os.strerror(errno.ENOSPC)}); free some room" in said
    assert said.count("\n") == 1
    assert resume.is_intact(run / "seed_0/dense")
    (where / "fill").unlink()
    monkeypatch.setattr(report, "write", lambda *_: None)
    assert command(place, run) == 0
    assert_same(stage_files(run), stage_files(whole[0]))


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root")
def test_too_little_room_for_a_round_is_known_before(tmpfs, dense, place, capsys):
    where, _ = tmpfs
    run = where / "run"
    shutil.copytree(dense, run)
    leave(where, 100_000)
    assert command(place, run) == 2
    said = capsys.readouterr().err
    assert re.search(r"98\.\d kB free, and the next round needs 2[89]\d\.\d kB", said), said


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root")
def test_a_read_only_file_system_is_refused(tmpfs, whole, place, capsys):
    where, remount = tmpfs
    shutil.copytree(whole[0], where / "run")
    remount("ro")
    for run in (where / "new", where / "run"):
        assert command(place, run) == 2
        said = capsys.readouterr().err
        assert f"{run}: cannot be written ({os.strerror(errno.EROFS)})" in said


# --- the estimate

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    "checkpoints", ["all", pytest.param(KeepLast(), marks=pytest.mark.slow), "best"]
)
def test_the_estimate_bounds_what_a_run_leaves(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "SAVE_EVERY", 1e9)
    experiment = with_fields(
        TINY,
        checkpoints=checkpoints,
        seeds=(0,),
        methods=("lottery",),
        rewind=Epoch(1),
        final=Stage(),
    )
    rooms = []

    def looking(*args):
        rooms.append(disk_space.estimate_room(*args))

    monkeypatch.setattr(disk_space, "check_room", looking)
    runner.run(experiment, tmp_path / "run")
    stored = list((tmp_path / "run").rglob("checkpoint"))
    assert rooms[0].checkpoints == len(stored)  # the dense one, an epoch of it, rounds
    assert rooms[0].rounds == 1 + 3
    left = sum(p.stat().st_size for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert left < rooms[0].whole < 20 * left
    for path in stored:
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        assert size < rooms[0].checkpoint * 1.1 + 8192  # and a little for each of its files
    runner.run(experiment, tmp_path / "run")
    assert rooms[1].whole == rooms[1].next == 0


@pytest.mark.parametrize(
    ("free", "outcome"),
    [(0.5, "refused"), (3.0, "a note"), (1000.0, "")],
)
def test_the_room_is_looked_at_with_numbers(free, outcome, tmp_path, monkeypatch, capsys):
    dataset = load(TINY.data)
    tree = {"weights": np.zeros(250_000_000, bool)}
    room = disk_space.estimate_room(TINY, tmp_path, tree, dataset)
    assert room.checkpoint == 250_000_000
    assert room.rounds == 2 * (1 + 2 * 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(free * room.next)))
    if outcome == "refused":
        with pytest.raises(UsageError, match=r"126\.3 MB free, and the next round needs 252\.5 MB"):
            disk_space.check_room(TINY, tmp_path / "run", tree, dataset)
        return
    disk_space.check_room(TINY, tmp_path / "run", tree, dataset)
    said = capsys.readouterr().out
    assert ("may need 4.8 GB (14 checkpoints of 250.0 MB" in said) == bool(outcome), said
    assert ("--execution.checkpoints last keeps fewer" in said) == bool(outcome)


# --- errors that are none of the disk's


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), storage.explain_write_errors():
        (tmp_path / "nothing").read_text()
    with pytest.raises(ValueError, match="shape"), storage.name_path_in_errors(layout.Path("x")):
        raise ValueError("shape")
    with pytest.raises(TrainingError, match=r"x: cannot be written \(Disk quota exceeded\)"):  # noqa
        with storage.explain_write_errors(), storage.name_path_in_errors(layout.Path("x")):
            raise ValueError("RESOURCE_EXHAUSTED: Error writing [os_error_code='122']")
