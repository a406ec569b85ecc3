"""Paths on object stores: pathlib's names, operations that a store has, refusal of all others."""

import os
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from fairgrape_jax import storage
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.parallel import hosts
from fairgrape_jax.storage import as_path, checkpoint, files, lock, resumable, staging
from fairgrape_jax.storage.object_store import ObjectPath
from tests.helpers import flat_store


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    return flat_store.bucket(tmp_path / "objects", monkeypatch)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("flat://bucket/runs/a", "flat://bucket/runs/a"),
        ("flat://bucket/runs/a/", "flat://bucket/runs/a"),
        (pathlib.Path("flat://bucket/runs/a"), "flat://bucket/runs/a"),  # a slash is lost
        ("memory://bucket", "memory://bucket"),
    ],
)
def test_an_address_is_a_place_on_a_store(place, expected):
    path = as_path(place)
    assert isinstance(path, ObjectPath)
    assert str(path) == expected
    assert as_path(path) is path
    assert as_path(str(path)) == path
    assert pickle.loads(pickle.dumps(path)) == path
    assert path.is_absolute()
    assert path.absolute() == path.resolve() == path


@pytest.mark.parametrize(
    "place", ["runs/a", "/runs/a", "~/a", "C:/a", "a:b", "odd:/a", "file:///runs/a", "", "://a"]
)
def test_everything_else_is_a_local_path(place):
    path = as_path(place)
    assert type(path) is type(pathlib.Path())
    assert str(path) == str(pathlib.Path(place.removeprefix("file://")))
    assert as_path(pathlib.Path(place)) == pathlib.Path(place)


def test_names_are_those_of_pathlib():
    path = as_path("flat://bucket/run/seed_0/masks.npz")
    assert (path.name, path.stem, path.suffix) == ("masks.npz", "masks", ".npz")
    assert str(path.parent) == "flat://bucket/run/seed_0"
    assert str(path.with_name("x")) == "flat://bucket/run/seed_0/x"
    assert str(path.parents[1] / "dense") == "flat://bucket/run/dense"
    assert path.relative_to(path.parents[1]).as_posix() == "seed_0/masks.npz"
    assert path != as_path("flat://bucket/run/seed_1/masks.npz")
    assert len({path, as_path(str(path))}) == 1


@pytest.mark.parametrize("place", ["nope://bucket/a", "x-y://b"])
def test_an_unknown_store_is_named(place):
    with pytest.raises(UsageError, match="fsspec knows no such store"):
        as_path(place).exists()


def test_a_store_whose_package_is_missing_names_the_extra(monkeypatch):
    def missing(scheme, **options):
        raise ImportError("Please install s3fs")

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(UsageError, match=r"s3://.*pip install 'fairgrape-jax\[s3\]'"):
        as_path("s3://bucket/never").exists()


def test_objects_are_put_read_listed_and_removed(bucket):
    run = bucket / "run"
    assert not run.exists()
    assert not list(run.rglob("*"))
    run.mkdir(parents=True)  # no folder is made
    assert not run.exists()
    for name in ("config.json", "seed_0/dense/a.txt", "seed_0/dense/b.txt", "seed_0/x/y/a.txt"):
        (run / name).write_text(name, encoding="utf-8")
    (bucket / "run2").write_bytes(b"not below run")
    assert run.exists()
    assert run.is_dir()
    assert not run.is_file()
    assert (run / "config.json").is_file()
    assert not (run / "config.json").is_dir()
    assert not bucket.is_file()
    assert not any(parent.is_file() for parent in run.parents)
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "seed_0"]

    def found(pattern):
        return [path.relative_to(run).as_posix() for path in run.glob(pattern)]

    assert found("seed_*/**/a.txt") == ["seed_0/dense/a.txt", "seed_0/x/y/a.txt"]
    assert found("*/*/*.txt") == ["seed_0/dense/a.txt", "seed_0/dense/b.txt"]
    assert found("*") == ["config.json"]  # objects alone
    assert len(list(run.rglob("*"))) == 4
    assert (run / "seed_0/dense/a.txt").read_text() == "seed_0/dense/a.txt"
    with (run / "config.json").open("rb") as file:
        file.seek(2)
        assert file.read(3) == b"nfi"
    with (run / "config.json").open(newline="", encoding="utf-8") as file:
        assert file.read() == "config.json"
    assert (run / "config.json").stat().st_size == 11
    (run / "config.json").unlink()
    (run / "config.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"flat://bucket/run/config\.json"):
        (run / "config.json").unlink()
    storage.remove_tree(run / "seed_0")
    storage.remove_tree(run / "seed_0", ignore_errors=True)
    assert not run.exists()
    assert (bucket / "run2").is_file()


def test_of_several_who_create_at_once_one_alone_does(bucket):
    assert (bucket / "lock").create(b"first")
    assert not (bucket / "lock").create(b"second")
    assert (bucket / "lock").read_bytes() == b"first"


LOCAL = {
    "open": lambda path: open(path, "w"),  # noqa: SIM115
    "mkdir": os.mkdir,
    "listdir": os.listdir,
    "rmtree": shutil.rmtree,
    "NumPy": np.load,
    "zip": zipfile.ZipFile,
    "text": os.fspath,
    "bytes": bytes,
}


@pytest.mark.parametrize("how", LOCAL)
def test_what_works_on_local_files_refuses_a_place_on_a_store(bucket, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="flat://bucket/run: is on an object store, and this need"):
        LOCAL[how](bucket / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]


def test_no_operation_of_a_path_reaches_for_a_local_file(bucket):
    """Also those of later versions of Python: each is of the store, refused, or of names alone."""
    of_names = set(dir(pathlib.PurePath)) | {"cwd", "home", "from_uri"}
    public = {name for name in dir(pathlib.Path) if not name.startswith("_")} - of_names
    assert public <= vars(ObjectPath).keys() | {"info"}
    for name in ("rename", "replace", "hardlink_to", "symlink_to", "touch", "chmod"):
        with pytest.raises(UsageError, match=f"{name} is not possible on an object store"):
            getattr(bucket / "a", name)("b")
    with pytest.raises(UsageError, match=r"open\('w'\) is not possible"):
        (bucket / "a").open("w")


def test_a_file_is_put_whole_or_not_at_all(bucket, tmp_path):
    path = bucket / "run/masks.npz"
    storage.write_arrays(path, {"a": np.arange(5)})
    np.testing.assert_array_equal(storage.read_arrays(path)["a"], np.arange(5))

    def write_half():
        with storage.atomic_write(path) as partial:
            partial.write_bytes(b"half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_half()
    assert list(storage.read_arrays(path)) == ["a"]
    storage.write_checksummed(bucket / "run/metrics.json", {"round": 3})
    assert storage.read_checksummed(bucket / "run/metrics.json") == {"round": 3}
    digests = storage.directory_digests(bucket / "run")
    assert digests.keys() == {"masks.npz", "metrics.json"}
    path.write_bytes(b"other")
    assert storage.changed_files(bucket / "run", digests) == ["masks.npz"]
    assert len(list(bucket.rglob("*"))) == 2  # nothing else is left


def test_a_store_that_refuses_is_named_before_and_while_it_is_written(bucket, monkeypatch):
    storage.check_writable(bucket / "run")
    assert not list(bucket.rglob("*"))

    def refuse(self, *arguments, **options):
        raise RuntimeError("HttpError: 403, no permission\non this bucket")

    monkeypatch.setattr(flat_store.FlatStore, "pipe_file", refuse)
    line = r"flat://bucket/run.*403, no permission on this bucket\); see that the bucket is there"
    with pytest.raises(UsageError, match=line):
        storage.check_writable(bucket / "run")
    with pytest.raises(TrainingError, match=line), storage.explain_write_errors():
        storage.write_text(bucket / "run/a", "text")


TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": None, "c": np.ones(3, bool)}


def test_a_checkpoint_is_put_with_its_digests_last(bucket, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    place = bucket / "run/checkpoint"
    for step in (1, 2):  # the second in place of the first
        flat_store.OPERATIONS.clear()
        checkpoint.save(place, TREE, {"step": step})
        changes = [
            (what, name) for what, name in flat_store.OPERATIONS if what not in ("ls", "cat")
        ]
        assert changes[-1] == ("overwrite", "bucket/run/checkpoint/digests.json")
        assert checkpoint.damaged_files(place) == []
        assert checkpoint.read_metadata(place) == {"step": step}
        restored, metadata = checkpoint.restore_with_metadata(place, TREE)
        assert metadata == {"step": step}
        np.testing.assert_array_equal(restored["a"], TREE["a"])
        np.testing.assert_array_equal(checkpoint.restore_as_stored(place)["c"], TREE["c"])
        np.testing.assert_array_equal(checkpoint.restore_foreign(place)["c"], TREE["c"])
    assert changes[0] == ("remove", "bucket/run/checkpoint/digests.json")
    assert not list(scratch.iterdir())
    victim = next(path for path in place.rglob("*") if path.parent.name == "d")
    victim.write_bytes(victim.read_bytes()[:-1])
    assert checkpoint.damaged_files(place) == [victim.relative_to(place).as_posix()]
    with pytest.raises(ValueError, match=r"flat://bucket/run/checkpoint/.*: damaged or gone"):
        checkpoint.restore(place, TREE)


def test_an_upload_that_fails_leaves_no_checkpoint_and_no_files_here(bucket, tmp_path, monkeypatch):
    scratch, place = tmp_path / "scratch", bucket / "run/checkpoint"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    put = flat_store.FlatStore.put_file

    def fail(self, lpath, rpath, **options):
        if rpath.endswith("manifest.ocdbt"):
            raise RuntimeError("connection lost")
        put(self, lpath, rpath, **options)

    monkeypatch.setattr(flat_store.FlatStore, "put_file", fail)
    with pytest.raises(OSError, match=r"connection lost.*flat://bucket/run/checkpoint/"):
        checkpoint.save(place, TREE)
    assert checkpoint.damaged_files(place) == ["digests.json"]
    assert not list(scratch.iterdir())


def test_every_process_writes_a_checkpoint_under_the_name_that_process_0_has_made(monkeypatch):
    monkeypatch.setattr(hosts, "is_process_0", lambda: False)
    other = np.zeros(staging.LONGEST, np.uint8)
    folder = "/tmp/ä".encode()
    other[: len(folder)] = np.frombuffer(folder, np.uint8)
    monkeypatch.setattr(staging.parallel, "broadcast_from_process_0", lambda name: other)
    assert str(staging.folder_of_process_0()) == "/tmp/ä"


def test_a_stopped_pass_is_kept_and_leftovers_go(bucket):
    import jax

    path, devices = bucket / "partial/passes/a", jax.local_devices()[:1]
    key = {"what": "scoring"}
    for count in (1, 2):
        snapshot = resumable.Snapshot(count, [np.arange(count)])
        resumable.write(path, key, devices, snapshot)
    kept = resumable.read(path, key, devices)
    assert kept.count == 2
    assert len(list(bucket.rglob("*.npz"))) == 1
    resumable.remove_snapshots(path)
    assert not list(bucket.rglob("*"))
    left = files.unique_sibling(bucket / "seed_0/dense.lock", "beat")
    left.write_bytes(b"alive")
    lock.remove_leftovers(bucket)
    assert left.exists()  # it may be of another machine with this one's name
    os.utime(next((flat_store.FlatStore().folder).iterdir()), (0, 0))
    lock.remove_leftovers(bucket)
    assert not left.exists()
