"""Pictures on disk: the same batches as from memory, in any number of workers, after any stop."""

from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from fairgrape_jax import config, data, parallel, scoring
from fairgrape_jax.data.batches import group_batches, padded_batches, train_batches
from fairgrape_jax.data.builders import folder_csv
from fairgrape_jax.data.builders.prepare import prepare
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.rounds import train
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.runner.run import run
from tests.helpers import layouts
from tests.helpers.datasets import ROOT
from tests.helpers.experiments import opened, with_fields
from tests.helpers.records import EXPERIMENT, StoppedError, epochs, read, source


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """240 pictures of 2 groups, in several record files."""
    place = tmp_path_factory.mktemp("pictures")
    rows = []
    for i in range(240):
        name = f"{i:03}.jpg"
        (place / name).write_bytes(layouts.jpeg(i, (40, 30)))
        rows.append((name, ("no", "yes")[i % 2], ("young", "old")[i // 2 % 2]))
    layouts.table(place / "labels.csv", ("file", "label", "group"), rows)
    data_dir = tmp_path_factory.mktemp("prepared")
    options = folder_csv.FolderCsv()
    prepare("folder_csv", place, options, data_dir=data_dir, shard_bytes=30_000)
    assert len(list(data_dir.glob("*/*/*.array_record*"))) > 3
    return data_dir


def same(a, b) -> None:
    batches = [list(a), list(b)]
    assert len(batches[0]) == len(batches[1]) > 0
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.multiprocess)])
def test_batches_from_disk_are_those_from_memory(faces, workers):
    disk, memory = read(faces, cache="disk", workers=workers), read(faces, cache="memory")
    assert isinstance(memory.train.images, np.ndarray)
    assert not isinstance(disk.train.images, np.ndarray)
    assert disk.shape == memory.shape == (16, 16, 3)
    for part in ((0, 1), (1, 2)):
        same(
            train_batches(disk.train, 32, 1, 2, start=1, part=part),
            train_batches(memory.train, 32, 1, 2, start=1, part=part),
        )
        same(
            padded_batches(disk.test, 16, part),
            padded_batches(memory.test, 16, part),
        )
    through, alive = train_batches(disk.train, 32, 1, 2, epochs=3), []
    for epoch in (2, 3):
        own = itertools.islice(through, len(disk.train) // 32)
        same(own, train_batches(memory.train, 32, 1, epoch))
        alive.append({process.pid for process in multiprocessing.active_children()})
    assert not workers or len(alive[0] & alive[1]) == workers  # the same ones in both epochs
    plan = group_batches(disk.train, 0.5, 8, 2, seed=0)
    schedule = scoring.assign_micro_batches(plan.group, 2, 4, 1)
    for part in ((0, 1), (1, 2)):
        same(
            scoring.micro_batches(disk.train, plan, schedule, part),
            scoring.micro_batches(memory.train, plan, schedule, part),
        )


def test_parts_of_processes_are_disjoint_and_complete(faces):
    split = read(faces, cache="disk").train
    seen = [
        np.concatenate([b["ids"] for b in train_batches(split, 32, 0, 0, part=(i, 4))])
        for i in range(4)
    ]
    together = np.concatenate(seen)
    assert len(np.unique(together)) == len(together) == len(split) // 32 * 32


def test_splits_of_disk_and_memory_have_the_evidence_of_what_they_hold(faces):
    disk, again, other = (read(faces, cache="disk", seed=s).train for s in (1, 1, 2))
    assert parallel.processes_agree([disk.evidence(), again.evidence()])
    assert not np.array_equal(disk.evidence()[0], other.evidence()[0])
    part = disk.take(np.array([3, 1]))
    np.testing.assert_array_equal(part.images[np.arange(2)], disk.images[np.array([3, 1])])


# --- a picture that is lost after preparing


@pytest.fixture
def damaged(faces, tmp_path):
    """A copy of the dataset in which some pictures of a record file are overwritten."""
    shutil.copytree(faces, tmp_path / "data")
    path = sorted((tmp_path / "data").glob("*/*/*.array_record*"))[1]
    content = bytearray(path.read_bytes())
    first = content.find(b"\xff\xd8", len(content) // 8)
    content[first + 2 : first + 600] = bytes(598)
    path.write_bytes(content)
    return tmp_path / "data"


def test_a_lost_picture_is_named_or_skipped_and_counted(damaged, faces):
    with pytest.raises(UsageError, match=r"picture \d+.jpg cannot be decoded"):
        read(damaged, cache="memory")  # nothing is trained yet
    split = read(damaged, cache="disk").train
    with pytest.raises(TrainingError, match=r"picture \d+.jpg cannot be decoded.*broken skip"):
        list(train_batches(split, 32, 0, 0))
    whole = read(faces, cache="disk").train
    skipping = read(damaged, cache="disk", broken="skip")
    batches = list(train_batches(skipping.train, 32, 0, 0))
    lost = set(skipping.train.images.lost)
    assert lost
    names = skipping.train.images.names
    for batch, sound in zip(batches, train_batches(whole, 32, 0, 0), strict=True):
        assert not lost & {names[i].decode() for i in batch["ids"]}
        kept = batch["ids"] == sound["ids"]
        np.testing.assert_array_equal(batch["images"][kept], sound["images"][kept])
        np.testing.assert_array_equal(batch["images"], whole.images[batch["ids"]])
    padded = list(padded_batches(skipping.train, 32))
    valid = np.concatenate([batch["valid"] for batch in padded])[: len(names)]
    assert {names[i].decode() for i in np.flatnonzero(~valid)} == lost
    in_memory = read(damaged, cache="memory", broken="skip")
    assert len(in_memory.train) == len(names) - len(lost)
    assert "skipped, cannot be decoded" in "\n".join(in_memory.notes)


def test_evaluation_has_no_row_for_a_lost_picture(damaged):
    dataset = read(damaged, cache="disk", broken="skip")
    seen = predict(*opened(EXPERIMENT, dataset, 2), "train")
    assert len(seen.groups) == len(dataset.train) - len(dataset.train.images.lost)
    names = [name.decode() for name in dataset.train.names]
    assert seen.names == tuple(name for name in names if name not in dataset.train.images.lost)
    assert [names[place] for place in seen.places] == list(seen.names)
    assert seen.predictions.min() >= 0


# --- runs


@pytest.mark.whole
def test_a_run_from_disk_is_the_run_from_memory(faces, tmp_path):
    for cache in ("disk", "memory"):
        experiment = with_fields(EXPERIMENT, data=source(faces), reading=data.Reading(cache))
        run(experiment, tmp_path / cache)
    assert config.identity(experiment) == config.identity(
        with_fields(experiment, reading=data.Reading("disk", workers=3))
    )
    for stage in ("dense", "fairgrape/round_01"):
        places = [tmp_path / cache / "seed_0" / stage for cache in ("disk", "memory")]
        found = [json.loads((place / "metrics.json").read_text()) for place in places]
        for record in found:
            for timed in ("seconds", "files", "checksum"):
                record.pop(timed, None)
        assert found[0] == found[1]
        said = [(place / "predictions.csv").read_text() for place in places]
        assert said[0] == said[1]


@pytest.mark.whole
def test_a_stop_in_the_middle_of_an_epoch_changes_nothing(faces, tmp_path):
    dataset = read(faces, cache="disk")
    whole: dict[int, list[int]] = {}
    state, history = epochs(dataset, tmp_path / "whole", seen=whole)
    per_epoch = len(dataset.train) // 32
    assert sorted(whole) == list(range(3 * per_epoch))
    for trial, stop in enumerate(np.random.default_rng(0).permutation(3 * per_epoch)[:1]):
        seen: dict[int, list[int]] = {}
        with pytest.raises(StoppedError):
            epochs(dataset, tmp_path / str(trial), int(stop), seen)
        again, resumed = epochs(dataset, tmp_path / str(trial), seen=seen)
        assert seen == whole
        assert resumed == history
        for a, b in zip(
            np.asarray(jax.tree.leaves(state), dtype=object),
            np.asarray(jax.tree.leaves(again), dtype=object),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


KILLED = """
import os, sys, time
from pathlib import Path
os.environ["NPROC"] = "16"; os.environ["JAX_PLATFORMS"] = "cpu"
import jax; jax.config.update("jax_num_cpu_devices", 2)
from tests.helpers import records as t
dataset = t.read(Path(sys.argv[1]), cache="disk")
class Log(dict):
    def __setitem__(self, step, ids):
        with open(sys.argv[3], "a") as file:
            file.write(f"{step} {ids}\\n"); file.flush(); os.fsync(file.fileno())
        time.sleep(0.05)
t.epochs(dataset, Path(sys.argv[2]), seen=Log())
print("complete", flush=True)
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_kill_9_at_twenty_random_points(faces, tmp_path):
    def start(name):
        log = tmp_path / f"{name}.log"
        command = [sys.executable, "-c", KILLED, str(faces), str(tmp_path / name), str(log)]
        environment = {"PYTHONPATH": str(ROOT)}
        return log, subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ} | environment
        )

    def steps_of(log):
        """The ids of each step, as they were last met."""
        lines = [line.split(" ", 1) for line in log.read_text().splitlines() if line.endswith("]")]
        return {int(step): ids for step, ids in lines}, [int(step) for step, _ in lines]

    log, process = start("whole")
    process.communicate(timeout=300)
    whole, order = steps_of(log)
    assert order == list(range(len(whole)))
    rng = np.random.default_rng(0)
    kills = 0
    name = 0
    while kills < 20:
        # A run is killed again and again until it is complete; then the next one begins.
        log, process = start(f"run{name}")
        before = len(steps_of(log)[1]) if log.exists() else 0
        stop = before + int(rng.integers(1, 8))
        while process.poll() is None:
            if log.exists() and len(steps_of(log)[1]) >= stop:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.communicate(timeout=300)
        found, order = steps_of(log)
        assert all(whole[step] == ids for step, ids in found.items())
        if process.returncode == 0:
            assert found == whole
            name += 1
    process = start(f"run{name}")[1]
    process.communicate(timeout=300)
    assert steps_of(tmp_path / f"run{name}.log")[0] == whole


@pytest.mark.slow
def test_a_run_of_imagenets_shape(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(train, "SILENCE", train.SILENCE)  # the script changes it
    options = ["--folder", str(tmp_path), "--records", "2000", "--steps", "10", "--model", "mlp"]
    monkeypatch.setattr(sys, "argv", ["imagenet_shaped", *options])
    importlib.import_module("experiments.imagenet_shaped").main()
    text = capsys.readouterr().out
    assert text.count("ms/step") == 3
    assert "complete:" in text
    stored = stored_in(tmp_path / "prepared" / "imagenet2012" / "1.0.0")
    assert len(stored.columns["name"]) == 3000
    assert stored.about["groups"] == ["group"]


def test_disk_and_broken_options_are_checked(faces):
    with pytest.raises(UsageError, match="broken='maybe'"):
        read(faces, broken="maybe")
