"""Whole runs from Python: `run` does what the command does, `load` reads a finished stage."""

import dataclasses
import importlib.util
import json
import shutil
import struct

import jax
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

import fairgrape_jax as fg
from fairgrape_jax import data, masks
from fairgrape_jax.runner import layout
from tests.helpers.experiments import TINY, load_checkpoint, with_fields

DEVICES = 2
METHODS = ("magnitude", "fairgrape")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    experiment = with_fields(TINY, seeds=(0,), devices=DEVICES)
    return fg.run(experiment, tmp_path_factory.mktemp("runs") / "tiny", track="tensorboard")


@pytest.fixture
def copied(finished, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(finished.directory, tmp_path / "copy")


def test_a_run_is_whole_with_its_report_and_not_done_again(finished):
    names = ["dense", *[f"{m}/round_0{n}" for m in sorted(METHODS) for n in (1, 2, 3)]]
    assert finished.complete
    assert finished.stages == tuple(f"seed_0/{name}" for name in names)
    for name in ("report.html", "report.md", "metrics.csv"):
        assert (finished.directory / name).is_file()
    times = {path: path.stat().st_mtime_ns for path in finished.directory.rglob("metrics.json")}
    assert fg.run(finished.directory) == finished
    assert times == {path: path.stat().st_mtime_ns for path in times}


def scalars(folder):
    """(tag, step): value of the event files of a folder: length, checksum, event, checksum each."""
    found = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            found |= {(one.tag, event.step): one.simple_value for one in event.summary.value}
            content = content[16 + length :]
    return found


def test_a_tracked_run_has_the_scalars_of_its_epochs_and_rounds(finished):
    for series in ("dense", *METHODS):
        logged = scalars(finished.directory / "tensorboard" / "seed_0" / series)
        names = [x for x in finished.stages if x.startswith(f"seed_0/{series}")]
        records = [layout.read_record(finished.directory / name) for name in names]
        epochs = [epoch for record in records for epoch in record["history"]]
        expected = {("epoch/loss", int(epoch["epoch"])): epoch["loss"] for epoch in epochs}
        for record in records:
            number = record["round"]
            expected["round/weights left (%)", number] = 100 * record["density"]
            for group, value in zip(
                record["groups"], record["test"]["group_accuracy"], strict=True
            ):
                expected[f"round/group_accuracy/{group}", number] = value
        assert expected.keys() <= logged.keys()
        for place, value in expected.items():
            assert logged[place] == pytest.approx(value, rel=1e-6), place


def test_a_tracker_that_is_not_installed_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(fg.UsageError, match=r"pip install 'fairgrape_jax\[tensorboard\]'"):
        fg.run(TINY, tmp_path / "run", track="tensorboard")
    assert not list(tmp_path.iterdir())


def test_a_wrong_request_is_named_before_anything_is_written(tmp_path):
    for message, arguments, options in (
        ("is not a run", (tmp_path / "nowhere",), {}),
        ("unknown model 'odd'", (with_fields(TINY, model="odd"), tmp_path / "run"), {}),
        ("seeds", (with_fields(TINY, seeds="no"), tmp_path / "run"), {}),
        (r"shard: \(2, 2\)", (TINY, tmp_path / "run"), {"shard": (2, 2)}),
        ("name the directory", (TINY,), {}),
        ("'wandb' is none of tensorboard", (TINY, tmp_path / "run"), {"track": "wandb"}),
    ):
        with pytest.raises(fg.UsageError, match=message):
            fg.run(*arguments, **options)
    assert not list(tmp_path.iterdir())


def test_a_stage_is_what_the_run_left_and_predicts_what_it_recorded(copied, finished, monkeypatch):
    """From the directory alone: neither its data nor its place are needed."""
    dataset = data.load(TINY.data)
    monkeypatch.setattr(data, "load", None)
    for name in finished.stages:
        stage = fg.load(copied, name)
        saved = load_checkpoint(finished.directory / name)
        jax.tree.map(np.testing.assert_array_equal, stage.params, dict(saved["state"].params))
        jax.tree.map(np.testing.assert_array_equal, stage.masks, saved["masks"])
        assert jax.tree.structure(stage.masks) == jax.tree.structure(saved["masks"])
        assert (stage.name, stage.experiment.data) == (name, TINY.data)
        assert stage.density == masks.density(stage.masks)
        logits = np.asarray(stage.apply(dataset.test.images))
        np.testing.assert_array_equal(logits.argmax(axis=1), stage.predictions.predictions[:, 0])
        np.testing.assert_allclose(jax.nn.softmax(logits), stage.predictions.scores, atol=1e-5)
        hits = stage.predictions.predictions == dataset.test.labels
        assert stage.metrics["accuracy"] == pytest.approx(100 * hits.mean())
        assert stage.groups == dataset.groups
        assert stage.tasks == {task.name: task.classes for task in dataset.tasks}
        with pytest.raises(dataclasses.FrozenInstanceError):
            stage.name = "other"
    assert repr(stage).startswith(f"LoadedStage('{name}', model='cnn', density=0.19")
    with pytest.raises(ValueError, match=r"images: \(2, 9, 9, 3\); \(B, 8, 8, 3\)"):
        stage.apply(np.zeros((2, 9, 9, 3)))


def test_a_loaded_network_goes_on_through_the_front_door(finished):
    stage = fg.load(finished.directory, "fairgrape")
    chosen, info = fg.prune(stage.params, stage.masks, 0.1, method="magnitude", minimum=1)
    assert info["density"] == pytest.approx(0.1, abs=0.01)
    masks.check_nested(chosen, stage.masks)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("dense", "seed_0/dense"),
        ("seed_0/dense/", "seed_0/dense"),
        ("magnitude", "seed_0/magnitude/round_03"),
        ("seed_0/magnitude", "seed_0/magnitude/round_03"),
        ("fairgrape/round_01", "seed_0/fairgrape/round_01"),
    ],
)
def test_a_stage_may_be_named_in_part(finished, word, name):
    assert fg.load(str(finished.directory), word).name == name


def rewrite(path, change):
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def test_without_a_name_it_is_the_last_round_if_there_is_one_method(copied):
    with pytest.raises(ValueError, match="several methods; name a stage of seed_0/dense, seed_0/f"):
        fg.load(copied)
    rewrite(copied / "config.json", lambda s: s["experiment"].update(methods=["fairgrape"]))
    assert fg.load(copied).name == "seed_0/fairgrape/round_03"
    rewrite(copied / "config.json", lambda s: s["experiment"].update(seeds=[0, 1]))
    assert fg.load(copied).name == "seed_0/fairgrape/round_03"
    shutil.copytree(copied / "seed_0", copied / "seed_1")
    with pytest.raises(ValueError, match=r"several seeds: seed_0/fairgrape/round_03, seed_1/fair"):
        fg.load(copied)
    shutil.rmtree(copied / "seed_1")
    shutil.rmtree(copied / "seed_0/fairgrape")
    with pytest.raises(ValueError, match="no round is finished yet; there are: seed_0/dense"):
        fg.load(copied)


@pytest.mark.parametrize("word", ["seed_7/dense", "lottery", "fairgrape/round_04", "..", "seed_0"])
def test_no_such_stage_lists_those_that_are_there(finished, word):
    with pytest.raises(ValueError, match=r"finished ones: seed_0/dense, .*magnitude/round_03$"):
        fg.load(finished.directory, word)


def test_what_is_not_finished_not_kept_or_no_run_is_named(copied, tmp_path):
    stage = copied / "seed_0/fairgrape/round_02"
    shutil.rmtree(stage / "checkpoint")
    with pytest.raises(ValueError, match=r"checkpoints of some rounds.*with one: .*round_01, "):
        fg.load(copied, "fairgrape/round_02")
    (stage / "metrics.json").unlink()
    with pytest.raises(ValueError, match="'fairgrape/round_02' is not finished; finished ones"):
        fg.load(copied, "fairgrape/round_02")
    with pytest.raises(ValueError, match="not a run"):
        fg.load(tmp_path)


def files(stage):
    return sorted(path for path in stage.rglob("*") if path.is_file())


def test_every_changed_file_is_named(copied):
    stage = copied / "seed_0/fairgrape/round_01"
    for path in files(stage):
        content = path.read_bytes()
        for broken in (content + b"?", content[1:] + b"?", None):
            path.unlink() if broken is None else path.write_bytes(broken)
            if path.name == "metrics.json" and broken is None:
                continue
            with pytest.raises(ValueError, match=f"{path}: damaged"):
                fg.load(copied, "fairgrape/round_01")
            path.write_bytes(content)
        path.write_bytes(content)
    assert fg.load(copied, "fairgrape/round_01").round == 1


def test_a_run_of_before_says_what_it_did_not_write_down(copied):
    rewrite(copied / "config.json", lambda stored: stored.pop("input"))
    stage = fg.load(copied, "dense")
    with pytest.raises(ValueError, match="how pictures are normalised; do it, and call"):
        stage.apply(np.zeros((2, 8, 8, 3)))
    assert stage.module.apply(stage.variables, np.zeros((2, 8, 8, 3)), train=False).shape == (2, 3)


def test_the_record_of_another_stage_is_refused(copied):
    root = copied / "seed_0/fairgrape"
    shutil.rmtree(root / "round_02")
    shutil.copytree(root / "round_01", root / "round_02")
    assert layout.is_complete(root / "round_02")
    with pytest.raises(ValueError, match="the record of another stage"):
        fg.load(copied, "fairgrape/round_02")
