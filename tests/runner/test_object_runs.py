"""A whole run on an object store: as on a local disk, killed and resumed, and what reads it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairgrape_jax.cli.main import main
from fairgrape_jax.config import Stage
from fairgrape_jax.data.images import files, records
from fairgrape_jax.data.sources import arrays
from fairgrape_jax.errors import UsageError
from fairgrape_jax.library import runs
from fairgrape_jax.runner import stage
from fairgrape_jax.storage import as_path
from tests.helpers import flat_store
from tests.helpers.experiments import TINY, assert_same, stage_files

SHORT = dataclasses.replace(TINY, seeds=(0,), methods=("magnitude",), final=Stage())
CHANGES = ("overwrite", "create", "remove")


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it, and nothing is written after it."""


def kill_at(patch, number):
    """Raise before the operation of that number that changes an object, and every later one."""
    count = 0

    def killing(operation):
        def method(self, *arguments, **options):
            nonlocal count
            count += 1
            if count >= number:
                raise Killed
            return operation(self, *arguments, **options)

        return method

    for name in ("pipe_file", "rm_file"):
        operation = getattr(flat_store.FlatStore, name)
        patch.setattr(flat_store.FlatStore, name, killing(operation))


def names_of(directory):
    """The files or objects of a run, but for those that Orbax names by chance."""
    paths = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
    return {path.as_posix() for path in paths if "d" not in path.parts}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    directory = tmp_path_factory.mktemp("local") / "run"
    runs.run(SHORT, directory)
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run on a store, and how many operations changed objects there."""
    with pytest.MonkeyPatch.context() as patch:
        bucket = flat_store.bucket(tmp_path_factory.mktemp("store") / "objects", patch)
        flat_store.OPERATIONS.clear()
        finished = runs.run(SHORT, str(bucket / "run"))
        changes = sum(what in CHANGES for what, _ in flat_store.OPERATIONS)
        assert finished.complete
        yield finished.directory, changes


def test_a_run_on_a_store_is_the_run_on_a_local_disk(whole, local):
    directory, _ = whole
    assert str(directory) == "flat://bucket/run"
    assert_same(stage_files(directory), stage_files(local))
    for name in ("dense", "magnitude/round_03"):
        for file in ("predictions.csv", "masks.npz"):
            place = f"seed_0/{name}/{file}"
            assert (directory / place).read_bytes() == (local / place).read_bytes(), place
    assert names_of(directory) == names_of(local)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("part", [0.2, 0.45, 0.7, 0.95])
def test_a_run_that_is_killed_goes_on_to_the_same_bits(whole, local, tmp_path, monkeypatch, part):
    _, changes = whole
    directory = flat_store.bucket(tmp_path / "objects", monkeypatch) / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, int(part * changes))
        with pytest.raises(Killed):
            runs.run(SHORT, directory)
    for path in directory.rglob("*.lock"):
        path.unlink()  # its process is this one, which has not ended
    runs.run(SHORT, directory)
    assert_same(stage_files(directory), stage_files(local))
    assert names_of(directory) == names_of(local)


def test_a_second_process_is_told_who_writes_the_run(whole, local, capsys):
    directory, _ = whole
    path, record = directory / "seed_0/magnitude.lock", directory / "seed_0/dense/metrics.json"
    other = {"host": "elsewhere", "machine": "m", "process": 7, "started": "5", "token": "t"}
    path.write_text(json.dumps(other))
    before = record.read_bytes()
    try:
        assert main(["run", str(directory)]) == 2
    finally:
        path.unlink()
    (line,) = capsys.readouterr().err.splitlines()
    assert "by process 7 on elsewhere" in line
    assert f"if it is gone remove {path}" in line
    assert record.read_bytes() == before


@pytest.mark.whole
def test_what_reads_a_run_reads_it_there(whole, local, tmp_path, monkeypatch):
    directory, _ = whole
    monkeypatch.chdir(tmp_path)
    run = str(directory)
    assert main(["run", run]) == 0  # complete, its report is written anew
    assert (directory / "metrics.csv").read_bytes() == (local / "metrics.csv").read_bytes()
    assert main(["report", run, "--out", "flat://bucket/report"]) == 0
    there = as_path("flat://bucket/report/metrics.csv").read_bytes()
    assert there == (local / "metrics.csv").read_bytes()
    assert main(["recommend", run]) == 0
    tables = [f"{run}/seed_0/{name}/predictions.csv" for name in ("dense", "magnitude/round_03")]
    audit = ["audit", "--dense", tables[0], "--compressed", tables[1], "--out", "flat://bucket/a"]
    columns = ["--label-column", "class", "--prediction-column", "class_predicted"]
    assert main([*audit, *columns, "--id-column", "index"]) == 0
    assert as_path("flat://bucket/a/report.html").is_file()
    assert main(["export", run, "--to", "safetensors", "--out", "arrays"]) == 0
    assert (tmp_path / "arrays/model.safetensors").is_file()
    assert main(["measure", run, "--repeats", "1", "--save"]) == 0
    assert (directory / "seed_0/magnitude/round_03/cost.json").is_file()
    loaded, expected = (stage.load(each, "seed_0/magnitude") for each in (run, local))
    assert loaded.metrics == expected.metrics
    assert stage.stages(run) == stage.stages(local)
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["export", "RUN", "--to", "npz", "--out", "flat://bucket/x"],
            "an export must be on a local",
        ),
        (["run", "RUN", "--track", "tensorboard"], "is on an object store, and this needs a local"),
        (["report", "flat://bucket/none"], "not a run"),
        (["run", "nope://bucket/run"], "fsspec knows no such store"),
    ],
)
def test_what_needs_a_local_folder_or_is_not_there_says_so_in_a_line(whole, capsys, words, line):
    directory, _ = whole
    assert main([str(directory) if word == "RUN" else word for word in words]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error


def test_arrays_of_a_program_and_data_are_on_a_local_disk(whole):
    with pytest.raises(UsageError, match="kept with their run, on a local disk"):
        arrays.locate(arrays.Arrays(), whole[0])
    with pytest.raises(UsageError, match="data must be on a local disk"):
        records.expand_home("gs://bucket/faces")
    with pytest.raises(UsageError, match="data must be on a local disk"):
        files.check_place(Path("gs://bucket/faces.tar"), "a folder")


@pytest.mark.multiprocess
def test_a_run_that_the_system_kills_is_taken_over_at_once(tmp_path, monkeypatch):
    """SIGKILL amid the rounds, with the lock held; the same command goes on."""
    run = flat_store.bucket(tmp_path / "objects", monkeypatch) / "run"
    file = tmp_path / "small.py"
    file.write_text(
        "import dataclasses\n"
        "from fairgrape_jax.config import Stage\n"
        "from tests.helpers.experiments import TINY\n"
        "shorter = {'seeds': (0,), 'methods': ('magnitude',), 'final': Stage()}\n"
        "EXPERIMENT = dataclasses.replace(TINY, **shorter)\n"
    )
    program = "import sys; from tests.helpers import flat_store; "
    program += "from fairgrape_jax.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-u", "-c", program, "run", str(file), "--out", str(run)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if "round 1/3" in line:
            child.kill()
    child.stdout.close()
    assert child.wait() == -9
    assert (run / "seed_0/magnitude.lock").exists()
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert not [path for path in run.rglob("*") if "lock" in path.name]
