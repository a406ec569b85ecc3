"""A run from end to end on small synthetic pictures: what it leaves, and that it resumes."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from fairgrape_jax import data, masks, metrics, storage, training
from fairgrape_jax.config import KeepLast, Stage
from fairgrape_jax.data import load, source
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.predict import predict, tally
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.runner import finish, predictions, preflight
from fairgrape_jax.runner.prepare import prepare
from fairgrape_jax.runner.run import run
from fairgrape_jax.selection import schedules
from fairgrape_jax.storage import checkpoint, checksums, resumable
from tests.helpers import experiments, shared_steps
from tests.helpers.experiments import (
    assert_same,
    load_checkpoint,
    opened,
    stage_files,
    with_fields,
)

# With the fixed point, which other tests do without.
TINY = dataclasses.replace(
    experiments.TINY, scoring=dataclasses.replace(experiments.TINY.scoring, select="threshold")
)
STAGES = ["dense", *[f"{m}/round_0{n}" for m in ("fairgrape", "magnitude") for n in (1, 2, 3)]]


def counting(experiment, directory):
    """Do a run; how many programs had been compiled when each of its lines was said."""
    compiled, counts = [], {}

    def listen(event, duration, **details):
        if event.endswith("backend_compile_duration"):
            compiled.append(str(details.get("fun_name")))

    shared_steps.BUILT.clear()  # nothing is compiled yet
    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "say", lambda line: counts.update({line: len(compiled)}))
        run(experiment, directory)
    return counts


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run, and the programs compiled until each line."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    return directory, counting(TINY, directory)


def complete_stages(directory):
    return sorted(
        str(path.parent.relative_to(directory)) for path in directory.rglob("metrics.json")
    )


def test_every_stage_is_there_with_its_files(finished):
    directory, _ = finished
    found = complete_stages(directory)
    assert found == sorted(f"seed_{s}/{name}" for s in (0, 1) for name in STAGES)
    for name in found:
        files = {path.name for path in (directory / name).iterdir()}
        assert files == {"checkpoint", "masks.npz", "predictions.csv", "metrics.json"}
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(found)
    config = json.loads((directory / "config.json").read_text())
    assert config["experiment"]["data"]["name"] == "synthetic"
    assert config["experiment"]["weight_decay"] == 0.0  # defaults are written too
    assert config["versions"]["jax"] == jax.__version__
    assert config["devices"]["count"] == 1


def test_counts_are_exact_nested_and_dead_weights_are_zero(finished):
    directory, _ = finished
    densities = schedules.densities(TINY.sparsity, TINY.keep_per_round)
    for method in TINY.methods:
        before = None
        for number, density in enumerate(densities, 1):
            stage = directory / "seed_0" / method / f"round_0{number}"
            found = load_checkpoint(stage)
            for row in masks.sparsity_table(found["masks"]):
                assert row["alive"] == masks.kept(row["weights"], density)
            kernels = masks.select_prunable(found["masks"], found["state"].params)
            for weights, mask in zip(
                jax.tree.leaves(kernels), jax.tree.leaves(found["masks"]), strict=True
            ):
                assert np.all(weights[~mask] == 0)
            if before is not None:
                masks.check_nested(found["masks"], before)
            before = found["masks"]
            published = checkpoint.load_masks(stage / "masks.npz")
            for name, mask in zip(masks.layer_names(before), jax.tree.leaves(before), strict=True):
                np.testing.assert_array_equal(published[name], mask)


def test_nothing_is_compiled_after_the_first_rounds(finished):
    _, counts = finished
    after = {" ".join(line.split()[:4]): count for line, count in counts.items()}
    assert after["seed 0 dense weights"] >= 4  # train, evaluate, accumulate, reduce
    assert after["seed 1 fairgrape round"] == after["seed 0 fairgrape round"]


def test_by_shard_map_a_run_leaves_the_same_bits_and_compiles_as_little(finished, tmp_path):
    """The steps of both rounds after the first are those that the first compiled."""
    experiment = with_fields(TINY, seeds=(0,), methods=("fairgrape", "magnitude"), lift="shard_map")
    counts = counting(experiment, tmp_path / "run")
    after = [count for line, count in counts.items() if line.startswith("seed 0 magnitude")]
    assert len(after) == 3
    assert after[0] == after[1] == after[2] >= 4
    expected = {k: v for k, v in stage_files(finished[0]).items() if k.startswith("seed_0")}
    assert_same(stage_files(tmp_path / "run"), expected)


def test_metrics_follow_from_the_predictions(finished):
    directory, _ = finished
    dataset = load(TINY.data)
    tasks = [(task.name, task.classes) for task in dataset.tasks]
    counts = {}
    for name in ("dense", "fairgrape/round_03"):
        stage = directory / "seed_1" / name
        read = predictions.read_predictions(stage / "predictions.csv", dataset.groups, tasks)
        np.testing.assert_array_equal(read.labels, dataset.test.labels)
        np.testing.assert_array_equal(read.scores.argmax(axis=1), read.predictions[:, 0])
        np.testing.assert_allclose(read.scores.sum(axis=1), 1, atol=1e-5)
        assert read.names is None  # drawn, not of files
        counts[name] = tally(dataset, read)
        record = json.loads((stage / "metrics.json").read_text())
        assert record["test"] == metrics.evaluate_all(counts[name], counts["dense"])
    assert record["density"] == pytest.approx(0.2, abs=0.01)
    assert list(record["importance"]) == ["conv1", "conv2", "fc1", "fc2"]
    assert len(record["history"]) == 2
    assert set(record["selection"]) == set(record["importance"])
    for found in record["selection"].values():
        assert set(found) == {"passes", "share_error", "converged"}
        assert found["share_error"] < 0.5


def test_a_count_for_the_whole_network(tmp_path):
    scoring = dataclasses.replace(TINY.scoring, allocation="global")
    experiment = dataclasses.replace(TINY, scoring=scoring, seeds=(0,), sparsity=0.5)
    run(experiment, tmp_path / "run")
    for method, names in (("fairgrape", ["network"]), ("magnitude", [])):
        record = json.loads((tmp_path / f"run/seed_0/{method}/round_01/metrics.json").read_text())
        weights, alive = (sum(row[k] for row in record["layers"]) for k in ("weights", "alive"))
        assert alive == masks.kept(weights, 0.5)
        assert list(record["selection"]) == names


def test_a_fixed_point_that_is_not_found_is_said():
    found = {"passes": 16, "share_error": 0.1, "converged": False}
    lines = select.describe_unsolved({"fc": found, "conv": {**found, "converged": True}})
    assert lines == ["layer fc: fixed point not found in 16 passes, chosen by greedy steps"]
    assert select.describe_unsolved({"fc": {"achieved": 0.5, "bound": 0.6}}) == []


def test_a_finished_run_run_again_changes_nothing(finished):
    directory, _ = finished
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    run(TINY, directory)
    after = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    assert before == after


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stopped_run_resumes_to_the_same_bits(finished, tmp_path, monkeypatch, stop_at):
    """Stopped after the checkpoint of a stage was written but before the stage was complete."""
    complete, _ = finished
    experiment = dataclasses.replace(TINY, seeds=(0,))
    seal, calls = checksums.write_checksummed, []

    def stopping(path, record):
        calls.append(path.name)
        if calls.count("metrics.json") == stop_at + 1:
            raise KeyboardInterrupt
        seal(path, record)

    monkeypatch.setattr(storage, "write_checksummed", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "run")
    assert len(complete_stages(tmp_path / "run")) == stop_at
    monkeypatch.undo()
    run(experiment, tmp_path / "run")
    expected = {k: v for k, v in stage_files(complete).items() if k.startswith("seed_0")}
    assert_same(stage_files(tmp_path / "run"), expected)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("stop_at", [2, 7])  # in the dense training; in the last round's final
def test_training_stopped_between_epochs_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, capsys, stop_at
):
    experiment = dataclasses.replace(
        TINY,
        seeds=(0,),
        methods=("fairgrape",),
        dense=Stage((2, 1), (1e-2, 1e-3), best=True),
        final=Stage((1, 1), (1e-3, 1e-4), best=True),
    )
    run(experiment, tmp_path / "whole")
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    epoch, calls = training.train_epoch, []

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == stop_at + 1:
            raise KeyboardInterrupt
        return epoch(*args, **options)

    monkeypatch.setattr(training, "train_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "run")
    run(experiment, tmp_path / "run")
    assert "going on after epoch" in capsys.readouterr().out
    assert len(calls) == 3 + 3 + 2 + 1  # no epoch was trained twice, one was begun twice
    assert_same(stage_files(tmp_path / "run"), stage_files(tmp_path / "whole"))
    assert not list((tmp_path / "run").rglob("partial"))


def test_only_the_last_checkpoint_is_kept_if_so_configured(tmp_path):
    experiment = with_fields(
        TINY, seeds=(0,), methods=("magnitude",), checkpoints=KeepLast(), final=Stage()
    )
    run(experiment, tmp_path / "run")
    kept = sorted(path.parent.name for path in (tmp_path / "run").rglob("checkpoint"))
    assert kept == ["dense", "round_03"]


def test_another_configuration_is_refused_and_another_device_count_is_not(finished):
    directory, _ = finished
    other = dataclasses.replace(TINY, batch=16)
    with pytest.raises(UsageError, match=r"another configuration \(batch is 32 there, 16 here\)"):
        run(other, directory)
    preflight.check_directory(with_fields(TINY, devices=2), directory)


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not empty and not a run"):
        run(TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_loss_that_is_not_finite_stops_with_the_step_and_can_be_resumed(tmp_path):
    broken = dataclasses.replace(
        TINY, seeds=(0,), optimizer="sgd", retrain=Stage((2,), (1e9,)), final=Stage()
    )
    with pytest.raises(TrainingError, match=r"^loss.* not finite at step \d+:") as error:
        run(broken, tmp_path / "run")
    step = int(re.search(r"step (\d+)", str(error.value))[1])
    assert step >= 3 * 10  # three dense epochs of ten steps were done before
    assert complete_stages(tmp_path / "run") == ["seed_0/dense"]
    with pytest.raises(TrainingError, match=f"step {step}:"):
        run(broken, tmp_path / "run")


def test_the_best_epoch_is_kept(tmp_path):
    """The second piece's rate ruins the network; the state of the first piece comes back."""
    experiment = dataclasses.replace(
        TINY, seeds=(0,), methods=("magnitude",), dense=Stage((2, 2), (1e-2, 3.0), best=True)
    )
    run(experiment, tmp_path / "run")
    record = json.loads((tmp_path / "run/seed_0/dense/metrics.json").read_text())
    losses = [epoch["validation_loss"] for epoch in record["history"]]
    assert np.argmin(losses) < 2
    dataset = load(experiment.data)
    session, _ = opened(experiment, dataset)
    found = load_checkpoint(tmp_path / "run/seed_0/dense")
    seen = predict(session, Network(found["state"], found["masks"]), "validation")
    assert seen.losses.mean(dtype=np.float64) == pytest.approx(min(losses), rel=1e-6)
    assert found["state"].epoch == 4  # the position in the data goes on


def test_several_tasks_batch_norm_and_several_devices(tmp_path):
    experiment = with_fields(
        TINY,
        data=source("synthetic", samples=200, groups=2, classes=3, tasks=2, size=8, seed=1),
        model="mlp",
        methods=("importance",),
        seeds=(0,),
        devices=4,
        augmentation="flip_shift",
        reset_optimizer=False,
    )
    run(experiment, tmp_path / "run")
    record = json.loads((tmp_path / "run/seed_0/importance/round_03/metrics.json").read_text())
    assert len(record["tasks"]) == 2
    assert record["density"] == pytest.approx(0.2, abs=0.01)


def test_predictions_are_equal_on_any_number_of_devices():
    dataset = load(TINY.data)
    results = {}
    for count in (1, 2, 4, 8):
        experiment = with_fields(TINY, evaluation_batch=7)  # does not divide the split
        results[count] = predict(*opened(experiment, dataset, count), "test")
        assert len(results[count].losses) == len(dataset.test)
    for count in (2, 4, 8):
        np.testing.assert_array_equal(results[count].predictions, results[1].predictions)
        one, other = (tally(dataset, results[n]) for n in (1, count))
        np.testing.assert_array_equal(one, other)


def test_a_note_is_printed_once(tmp_path, monkeypatch, capsys):
    dataset = load(TINY.data)
    noted = dataclasses.replace(dataset, notes=("one picture is lost", "a licence") * 2)
    monkeypatch.setattr(data, "load", lambda *_: noted)
    prepare(TINY, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("note: one picture is lost") == 1
    assert lines.count("note: a licence") == 1
